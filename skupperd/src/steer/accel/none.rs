//! What stands for the kernel in a program without eBPF: there is none of these.

use super::{HopTotals, NotAccelerated};
use crate::steer::place::Network;
use std::net::SocketAddr;

pub(super) enum Kernel {}

pub(super) fn start() -> Result<Kernel, NotAccelerated> {
    Err(NotAccelerated::NotBuilt)
}

impl Kernel {
    pub(super) fn totals(&self) -> Result<HopTotals, NotAccelerated> {
        match *self {}
    }

    pub(super) fn listen(&self, _: Network, _: u16, _: Option<bool>) -> Result<(), NotAccelerated> {
        match *self {}
    }

    pub(super) fn connecting(&self, _: u64) -> Result<(), NotAccelerated> {
        match *self {}
    }

    pub(super) fn has_read(
        &self,
        _: SocketAddr,
        _: SocketAddr,
        _: u64,
    ) -> Result<(), NotAccelerated> {
        match *self {}
    }

    pub(super) fn leave(&self, _: SocketAddr, _: SocketAddr) -> Result<(), NotAccelerated> {
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
