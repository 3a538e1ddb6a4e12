//! Errors as D-Bus has them: `io.skupper.Error.*`, with the texts of the command.

use crate::{operate::OperateError, store::StoreError};

/// What a call can fail with.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "io.skupper.Error")]
pub enum Error {
    /// D-Bus itself.
    #[zbus(error)]
    ZBus(zbus::Error),
    /// What was asked for makes no sense; nothing was changed.
    Invalid(String),
    /// There is no such thing.
    NotFound(String),
    /// The caller may not do that.
    AccessDenied(String),
    /// It could not be done.
    Failed(String),
    /// It was not done in time.
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
