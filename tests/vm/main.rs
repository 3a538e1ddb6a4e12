//! The packages on Debian's own kernels, in virtual machines.

mod images;
mod kernels;
