//! The packages on Debian with a real systemd, in containers.

mod bind_ranges;
mod dbus;
mod guide;
mod package_contents;
mod packages;
mod polkit;
mod restarts;
mod selectors;
mod two_hosts;
mod unit;
