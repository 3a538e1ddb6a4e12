//! The BPF programs of acceleration in the kernel.

use super::super::bpf::{BpfError, program, take};
use aya::{
    EbpfLoader,
    maps::{HashMap, LpmTrie, MapData, MapError, PerCpuArray, SockHash, lpm_trie::Key},
    programs::{CgroupAttachMode, SkMsg, SockOps},
};
use skupper_ebpf::{
    Destination,
    hop::{self, HopCounters, Lane, Tuple, lane_state},
};
use std::{io, net::IpAddr, os::fd::BorrowedFd, sync::Arc};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/skupper-accel"));

/// From `linux/bpf.h`: update an existing entry only.
const EXISTING: u64 = 2;

/// Constants of the programs, set when they are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Cookie of the network namespace whose connections are accelerated.
    pub netns: u64,
    /// Bytes that may wait unread at the daemon before TCP and its window take over.
    pub ahead: u64,
    /// Bytes in one direction, without any in the other, after which TCP carries it.
    pub streak: u64,
    /// Directions: 1 to the daemon, 2 from it.
    pub directions: u32,
    /// An injected fault that tests must detect: a direction returns from TCP.
    pub fault: bool,
}

impl Rules {
    pub const BOTH: u32 = 3;
}

/// Counters of the programs, readable by any thread.
pub struct Hops(PerCpuArray<MapData, HopCounters>);

impl Hops {
    /// Sums since the programs were loaded.
    pub fn read(&self) -> Result<HopCounters, BpfError> {
        let of_each_cpu = self.0.get(&0, 0);
        let of_each_cpu = of_each_cpu.map_err(BpfError::of("reading the counters"))?;
        Ok(of_each_cpu
            .iter()
            .fold(HopCounters::default(), |sum, cpu| HopCounters {
                messages: sum.messages + cpu.messages,
                bytes: sum.bytes + cpu.bytes,
                sockets: sum.sockets + cpu.sockets,
                bulk: sum.bulk + cpu.bulk,
                late: sum.late + cpu.late,
            }))
    }
}

/// Programs that are loaded and attached to a cgroup. Dropping this detaches them.
pub struct Programs {
    destinations: LpmTrie<MapData, Destination, u32>,
    connecting: HashMap<MapData, u64, u32>,
    lanes: HashMap<MapData, Tuple, Lane>,
    read: HashMap<MapData, Tuple, u64>,
    sockets: SockHash<MapData, Tuple>,
    hops: Arc<Hops>,
    _programs: aya::Ebpf,
}

impl Programs {
    /// Loads the programs and attaches them to a cgroup, an open directory of the unified hierarchy:
    /// connections of its processes and of those below it are accelerated. Needs `CAP_BPF` and
    /// `CAP_NET_ADMIN`.
    pub fn load(cgroup: BorrowedFd<'_>, rules: Rules) -> Result<Self, BpfError> {
        let fault = u32::from(rules.fault);
        let mut programs = EbpfLoader::new()
            .override_global("NETNS", &rules.netns, true)
            .override_global("AHEAD", &rules.ahead, true)
            .override_global("STREAK", &rules.streak, true)
            .override_global("DIRECTIONS", &rules.directions, true)
            .override_global("FAULT", &fault, true)
            .load(OBJECT)
            .map_err(BpfError::of("loading the maps"))?;
        let destinations = take(&mut programs, "DESTINATIONS")?;
        let connecting = take(&mut programs, "CONNECTING")?;
        let lanes = take(&mut programs, "LANES")?;
        let read = take(&mut programs, "READ")?;
        let hops = Arc::new(Hops(take(&mut programs, "HOPS")?));
        let sockets: SockHash<MapData, Tuple> = take(&mut programs, "SOCKETS")?;
        let shorten: &mut SkMsg = program(&mut programs, "shorten")?;
        shorten
            .load()
            .map_err(BpfError::of("loading the sk_msg program"))?;
        shorten
            .attach(sockets.fd())
            .map_err(BpfError::of("attaching to the sockets"))?;
        // Attached last: from now on sockets are registered.
        let establish: &mut SockOps = program(&mut programs, "establish")?;
        establish
            .load()
            .map_err(BpfError::of("loading the sockops program"))?;
        establish
            .attach(cgroup, CgroupAttachMode::Single)
            .map_err(BpfError::of("attaching to the cgroup"))?;
        Ok(Self {
            destinations,
            connecting,
            lanes,
            read,
            sockets,
            hops,
            _programs: programs,
        })
    }

    /// Sets whether new connections to `port` of the addresses in `address/prefix` are accelerated.
    /// The longest prefix wins.
    pub fn listen(
        &mut self,
        address: IpAddr,
        prefix: u8,
        port: u16,
        on: bool,
    ) -> Result<(), BpfError> {
        let destination = Destination::of(address, port);
        let key = Key::new(Destination::key_bits(prefix), destination);
        self.destinations
            .insert(&key, if on { hop::on(prefix) } else { 0 }, 0)
            .map_err(BpfError::of("setting a destination"))
    }

    /// Registers the socket with this cookie when it connects.
    pub fn connecting(&mut self, cookie: u64) -> Result<(), BpfError> {
        self.connecting
            .insert(cookie, 1, 0)
            .map_err(BpfError::of("announcing a connection"))
    }

    /// Reverts [`Self::listen`].
    pub fn unlisten(&mut self, address: IpAddr, prefix: u8, port: u16) -> Result<(), BpfError> {
        let destination = Destination::of(address, port);
        let key = Key::new(Destination::key_bits(prefix), destination);
        match self.destinations.remove(&key) {
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other.map_err(BpfError::of("removing a destination")),
        }
    }

    /// Reports how many bytes of a sender the daemon has read.
    pub fn has_read(&mut self, sender: Tuple, bytes: u64) -> Result<(), BpfError> {
        self.read
            .insert(sender, bytes, 0)
            .map_err(BpfError::of("reporting read bytes"))
    }

    /// The state of a registered socket.
    pub fn direction_of(&self, socket: Tuple) -> Option<Lane> {
        self.lanes.get(&socket, 0).ok()
    }

    /// Makes a socket of the daemon send by TCP for good. The caller must not send concurrently.
    pub fn return_to_tcp(&mut self, socket: Tuple) -> Result<(), BpfError> {
        let Some(lane) = self.direction_of(socket) else {
            return Ok(());
        };
        let left = Lane {
            state: lane_state::TCP,
            ..lane
        };
        self.lanes
            .insert(socket, left, EXISTING)
            .map_err(BpfError::of("returning a socket to TCP"))
    }

    /// Addresses of the registered sockets.
    pub fn sockets(&self) -> Vec<Tuple> {
        self.sockets.keys().filter_map(Result::ok).collect()
    }

    pub fn hops(&self) -> Arc<Hops> {
        self.hops.clone()
    }
}
