//! The BPF programs of `skupper-ebpf` in the kernel: a `sk_lookup` program gives connections to
//! accept sockets by destination, without a socket for each destination.

use aya::{
    Ebpf, EbpfError,
    maps::{LpmTrie, Map, MapData, MapError, PerCpuArray, SockMap, lpm_trie::Key},
    programs::{Program, ProgramError, SkLookup},
};
use skupper_ebpf::{Binding, Counters, Destination};
use std::{
    net::{IpAddr, TcpListener},
    os::fd::BorrowedFd,
    sync::Arc,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/skupper-ebpf"));

/// The kernel refused something about the BPF programs.
#[derive(Debug, thiserror::Error)]
#[error("eBPF: {op}")]
pub struct BpfError {
    /// What was being done.
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
}

/// The programs' counters, which any thread may read.
pub struct Counts(PerCpuArray<MapData, Counters>);

impl Counts {
    /// What has happened to the connections of the bindings with this slot.
    pub fn of(&self, slot: u32) -> Result<Counters, BpfError> {
        let of_each_cpu = self.0.get(&slot, 0);
        let of_each_cpu = of_each_cpu.map_err(BpfError::of("reading the counters"))?;
        Ok(of_each_cpu
            .iter()
            .fold(Counters::default(), |sum, cpu| Counters {
                steered: sum.steered + cpu.steered,
                refused: sum.refused + cpu.refused,
                passed: sum.passed + cpu.passed,
            }))
    }
}

/// Programs that are loaded and attached to a network namespace. Dropping this detaches them.
pub struct Steering {
    bindings: LpmTrie<MapData, Destination, Binding>,
    sockets: SockMap<MapData>,
    counts: Arc<Counts>,
    // Holds the program and its attachment.
    _programs: Ebpf,
}

impl Steering {
    /// Loads the programs and attaches them to a network namespace, an open file of
    /// `/proc/<pid>/ns/net`. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn load(netns: BorrowedFd<'_>) -> Result<Self, BpfError> {
        let mut programs = Ebpf::load(OBJECT).map_err(BpfError::of("loading the maps"))?;
        let bindings = take(&mut programs, "BINDINGS")?;
        let sockets = take(&mut programs, "SOCKETS")?;
        let counts = Arc::new(Counts(take(&mut programs, "COUNTERS")?));
        let program: &mut SkLookup = program(&mut programs, "steer")?;
        program
            .load()
            .map_err(BpfError::of("loading the program"))?;
        program
            .attach(netns)
            .map_err(BpfError::of("attaching to the network namespace"))?;
        Ok(Self {
            bindings,
            sockets,
            counts,
            _programs: programs,
        })
    }

    /// Puts an accept socket at a place in the socket map. The kernel takes it out again when the
    /// socket is closed.
    pub fn set_socket(&mut self, index: u32, socket: &TcpListener) -> Result<(), BpfError> {
        self.sockets
            .set(index, socket, 0)
            .map_err(BpfError::of("setting an accept socket"))
    }

    /// From now on, new connections to `port` of the addresses in `address/prefix` go to the
    /// sockets of `binding`. The longest prefix wins; of the same prefix, the port before
    /// [`skupper_ebpf::ALL_PORTS`].
    pub fn bind(
        &mut self,
        address: IpAddr,
        prefix: u8,
        port: u16,
        binding: Binding,
    ) -> Result<(), BpfError> {
        let prefixed = Binding {
            prefix: u32::from(prefix),
            ..binding
        };
        self.bindings
            .insert(&key(address, prefix, port), prefixed, 0)
            .map_err(BpfError::of("setting a binding"))
    }

    /// Ends a binding. Connections that it has accepted go on.
    pub fn unbind(&mut self, address: IpAddr, prefix: u8, port: u16) -> Result<(), BpfError> {
        self.bindings
            .remove(&key(address, prefix, port))
            .map_err(BpfError::of("removing a binding"))
    }

    /// The counters.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

fn key(address: IpAddr, prefix: u8, port: u16) -> Key<Destination> {
    Key::new(
        Destination::key_bits(prefix),
        Destination::of(address, port),
    )
}

/// A program of the object, to load and attach.
pub(super) fn program<'a, P>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut P, BpfError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    programs
        .program_mut(name)
        .ok_or_else(|| ProgramError::InvalidName {
            name: name.to_owned(),
        })
        .and_then(TryInto::try_into)
        .map_err(BpfError::of("finding a program"))
}

/// A map of the object, to keep.
pub(super) fn take<M: TryFrom<Map, Error = MapError>>(
    programs: &mut Ebpf,
    name: &str,
) -> Result<M, BpfError> {
    programs
        .take_map(name)
        .ok_or_else(|| MapError::InvalidName {
            name: name.to_owned(),
        })
        .and_then(TryInto::try_into)
        .map_err(BpfError::of("finding a map"))
}
