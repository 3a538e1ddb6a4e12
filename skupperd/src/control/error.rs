//! The D-Bus errors `io.skupper.Error.*`, with the texts that the command prints.

use crate::{operate::OperateError, store::StoreError};

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "io.skupper.Error")]
pub enum Error {
    /// An error of D-Bus itself.
    #[zbus(error)]
    ZBus(zbus::Error),
    /// Invalid arguments or resources. Nothing was changed.
    Invalid(String),
    NotFound(String),
    AccessDenied(String),
    Failed(String),
    Timeout(String),
}

impl From<OperateError> for Error {
    fn from(error: OperateError) -> Self {
        let text = error.to_string();
        match error {
            OperateError::Invalid(_) => Self::Invalid(text),
            OperateError::Failed(_) => Self::Failed(text),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        OperateError::from(error).into()
    }
}
