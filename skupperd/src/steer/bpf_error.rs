//! Errors of BPF operations.

use aya::{EbpfError, maps::MapError};

/// The kernel refused a BPF operation.
#[derive(Debug, thiserror::Error)]
#[error("eBPF: {op}")]
pub struct BpfError {
    pub op: &'static str,
    #[source]
    source: Box<EbpfError>,
}

impl BpfError {
    pub(super) fn of<E: Into<EbpfError>>(op: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self {
            op,
            source: Box::new(source.into()),
        }
    }

    pub(super) fn pin(op: &'static str) -> impl FnOnce(aya::pin::PinError) -> Self {
        move |error| {
            let error = MapError::PinError { name: None, error };
            Self::of(op)(error)
        }
    }
}
