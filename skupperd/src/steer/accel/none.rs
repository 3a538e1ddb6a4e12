//! Replaces the programs in a build without eBPF; no value of the type exists.

use super::{AccelerationUnavailable, HopTotals};
use crate::steer::bind_range::Network;
use std::net::SocketAddr;

pub(super) enum LoadedPrograms {}

pub(super) fn start() -> Result<LoadedPrograms, AccelerationUnavailable> {
    Err(AccelerationUnavailable::NotBuilt)
}

impl LoadedPrograms {
    pub(super) fn totals(&self) -> Result<HopTotals, AccelerationUnavailable> {
        match *self {}
    }

    pub(super) fn listen(
        &self,
        _: Network,
        _: u16,
        _: Option<bool>,
    ) -> Result<(), AccelerationUnavailable> {
        match *self {}
    }

    pub(super) fn connecting(&self, _: u64) -> Result<(), AccelerationUnavailable> {
        match *self {}
    }

    pub(super) fn has_read(
        &self,
        _: SocketAddr,
        _: SocketAddr,
        _: u64,
    ) -> Result<(), AccelerationUnavailable> {
        match *self {}
    }

    pub(super) fn return_to_tcp(
        &self,
        _: SocketAddr,
        _: SocketAddr,
    ) -> Result<(), AccelerationUnavailable> {
        match *self {}
    }

    pub(super) fn is_short(&self, _: SocketAddr, _: SocketAddr) -> bool {
        match *self {}
    }

    pub(super) fn is_taken_up(&self, _: SocketAddr, _: SocketAddr) -> bool {
        match *self {}
    }

    pub(super) fn taken_up(&self) -> Vec<(SocketAddr, SocketAddr)> {
        match *self {}
    }
}
