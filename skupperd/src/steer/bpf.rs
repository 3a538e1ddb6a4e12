//! Loads the steering program of `skupper-ebpf`: an `sk_lookup` program assigns connections to
//! accept sockets by destination, without a socket for each destination.

pub use super::bpf_error::BpfError;
use super::pins::{self, PinDir, PinError, PinRoot};
use crate::{sys, telemetry};
use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, SockMap, lpm_trie::Key,
    },
    programs::{Program, ProgramError, ProgramInfo, SkLookup, links::FdLink},
    util::nr_cpus,
};
use parking_lot::{Mutex, MutexGuard};
use skupper_ebpf::{Binding, Counters, Destination, FIRST, FIXED_BITS, LAYOUT};
use std::{
    fs::File,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    net::{IpAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::Arc,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/skupper-ebpf"));

/// Pinned maps. Their names in the programs are also their file names.
const MAPS: [&str; 3] = ["BINDINGS", "SOCKETS", "COUNTERS"];
/// Other files of a pin directory: the program, its attachment, and the release that made them.
const PROGRAM: &str = "PROGRAM";
const LINK: &str = "LINK";
const STATE: &str = "STATE";
/// Indexes of the state map.
const STATE_LAYOUT: u32 = 0;
const STATE_RELEASE: u32 = 1;

/// What an instance found when it opened its pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinState {
    Nothing,
    /// Pins of the same release, which stay in use.
    Same,
    /// Another release of the program, which was replaced; its maps stay.
    OtherProgram,
    /// Incompatible pins, which were replaced. They stay attached until [`Steering::settle`].
    Other,
}

/// Counters of the programs, readable by any thread.
pub struct Counts(Mutex<PerCpuArray<MapData, Counters>>);

impl Counts {
    /// Sum of the counters of a slot.
    pub fn of(&self, slot: u32) -> Result<Counters, BpfError> {
        let of_each_cpu = self.locked().get(&slot, 0);
        let of_each_cpu = of_each_cpu.map_err(BpfError::of("reading the counters"))?;
        Ok(of_each_cpu
            .iter()
            .fold(Counters::default(), |sum, cpu| Counters {
                steered: sum.steered + cpu.steered,
                refused: sum.refused + cpu.refused,
                passed: sum.passed + cpu.passed,
            }))
    }

    /// Resets the counters of a slot.
    pub fn clear(&self, slot: u32) -> Result<(), BpfError> {
        let failed = "clearing a counter";
        let cpus = nr_cpus().map_err(|(_, e)| BpfError::of(failed)(MapError::IoError(e)))?;
        let zeros = PerCpuValues::try_from(vec![Counters::default(); cpus]);
        let zeros = zeros.map_err(|e| BpfError::of(failed)(MapError::IoError(e)))?;
        let cleared = self.locked().set(slot, zeros, 0);
        cleared.map_err(BpfError::of(failed))
    }

    fn locked(&self) -> MutexGuard<'_, PerCpuArray<MapData, Counters>> {
        self.0.lock()
    }
}

/// A program attached to a network namespace. Dropping this detaches it, unless it is pinned.
pub struct Steering {
    bindings: LpmTrie<MapData, Destination, Binding>,
    sockets: SockMap<MapData>,
    counts: Arc<Counts>,
    // Keeps the program and its attachment.
    _programs: Ebpf,
    pinned: Option<(PinRoot, String, PinDir)>,
    /// Lock on replaced pins until they are removed.
    replaced: Option<File>,
}

impl Steering {
    /// Loads the programs and attaches them to a network namespace, an open file of
    /// `/proc/<pid>/ns/net`. Needs `CAP_BPF` and `CAP_NET_ADMIN`.
    pub fn load(netns: BorrowedFd<'_>) -> Result<Self, BpfError> {
        Self::load_by(&mut EbpfLoader::new(), netns)
    }

    /// Like [`Self::load`], with one counter for all listeners, which saves memory.
    pub fn load_small(netns: BorrowedFd<'_>) -> Result<Self, BpfError> {
        let mut loader = EbpfLoader::new();
        Self::load_by(loader.map_max_entries(MAPS[2], FIRST), netns)
    }

    fn load_by(loader: &mut EbpfLoader<'_>, netns: BorrowedFd<'_>) -> Result<Self, BpfError> {
        let mut programs = load(loader, OBJECT)?;
        let program = program::<SkLookup>(&mut programs, "steer")?;
        program.attach(netns).map_err(BpfError::of(ATTACHING))?;
        Self::of(programs)
    }

    /// Like [`Self::load`], with a pinned program that outlives this value: the instance's existing
    /// one or a new one. `lock` is the previous process's descriptor of [`Self::lock`].
    pub fn open(
        netns: BorrowedFd<'_>,
        home: &PinRoot,
        instance: &str,
        lock: Option<OwnedFd>,
    ) -> Result<(Self, PinState), PinError> {
        Self::open_release(netns, home, instance, lock, release())
    }

    /// [`Self::open`] as another release would do it, for tests.
    pub fn open_release(
        netns: BorrowedFd<'_>,
        home: &PinRoot,
        instance: &str,
        lock: Option<OwnedFd>,
        release: u64,
    ) -> Result<(Self, PinState), PinError> {
        let mut replaced = None;
        if let Some(pinned) = home.find(instance, lock)? {
            match Self::adopt(netns, &pinned.dir, release) {
                Ok(Some((mut steering, found))) => {
                    // Left by a process that was killed before it settled.
                    home.forget_old(instance)?;
                    steering.pinned = Some((home.clone(), instance.to_owned(), pinned));
                    return Ok((steering, found));
                }
                Ok(None) => {}
                Err(error) => {
                    let (dir, error) = (pinned.dir.display(), telemetry::chain(&error));
                    tracing::warn!(%dir, error, "cannot reuse pinned programs; loading new ones");
                }
            }
            replaced = Some(pinned.lock);
        }
        let made = home.make(instance)?;
        let steering = Self::load_pinned(netns, &made.dir, release);
        let mut steering = steering.inspect_err(|_| {
            // The error that counts is the first one.
            let _ = pins::remove(&made.dir);
        })?;
        let pinned = home.publish(instance, made)?;
        let found = match &replaced {
            Some(_) => PinState::Other,
            None => PinState::Nothing,
        };
        steering.pinned = Some((home.clone(), instance.to_owned(), pinned));
        steering.replaced = replaced;
        Ok((steering, found))
    }

    fn load_pinned(netns: BorrowedFd<'_>, dir: &Path, release: u64) -> Result<Self, BpfError> {
        let mut programs = load(pinning(&mut EbpfLoader::new(), dir), OBJECT)?;
        let program = program::<SkLookup>(&mut programs, "steer")?;
        let id = program.attach(netns).map_err(BpfError::of(ATTACHING))?;
        let link = program.take_link(id).map_err(BpfError::of(ATTACHING))?;
        let pinning = "pinning";
        FdLink::from(link)
            .pin(dir.join(LINK))
            .map_err(BpfError::pin(pinning))?;
        program
            .pin(dir.join(PROGRAM))
            .map_err(BpfError::pin(pinning))?;
        let mut state = Array::<MapData, u64>::create(2, 0).map_err(BpfError::of(pinning))?;
        for (index, word) in [(STATE_LAYOUT, LAYOUT), (STATE_RELEASE, release)] {
            state.set(index, word, 0).map_err(BpfError::of(pinning))?;
        }
        state.pin(dir.join(STATE)).map_err(BpfError::pin(pinning))?;
        Self::of(programs)
    }

    /// Adopts the pins of a directory. `None`: they are of another map layout or network namespace.
    fn adopt(
        netns: BorrowedFd<'_>,
        dir: &Path,
        release: u64,
    ) -> Result<Option<(Self, PinState)>, BpfError> {
        const ADOPTING: &str = "adopting pinned programs";
        let of_system = |error: io::Error| BpfError::of(ADOPTING)(MapError::IoError(error));
        let state = MapData::from_pin(dir.join(STATE)).map_err(BpfError::of(ADOPTING))?;
        let state = Array::<_, u64>::try_from(Map::Array(state));
        let mut state = state.map_err(BpfError::of(ADOPTING))?;
        let word = |index| state.get(&index, 0).map_err(BpfError::of(ADOPTING));
        if word(STATE_LAYOUT)? != LAYOUT {
            return Ok(None);
        }
        let old_release = word(STATE_RELEASE)?;
        let link = sys::bpf::open_pin(&dir.join(LINK)).map_err(of_system)?;
        let (old_id, old_netns) = sys::bpf::link_to(link.as_fd()).map_err(of_system)?;
        let own = netns.try_clone_to_owned().map(File::from);
        let own = own.and_then(|f| f.metadata()).map_err(of_system)?;
        if u64::from(old_netns) != own.ino() {
            return Ok(None);
        }
        let old = ProgramInfo::from_pin(dir.join(PROGRAM)).map_err(BpfError::of(ADOPTING))?;
        let mut programs = load(pinning(&mut EbpfLoader::new(), dir), OBJECT)?;
        let program = program::<SkLookup>(&mut programs, "steer")?;
        let new = program.info().map_err(BpfError::of(ADOPTING))?;
        let mut found = PinState::Same;
        if (old.id(), old.tag(), old_release) != (old_id, new.tag(), release) {
            let file = program.fd().map_err(BpfError::of(ADOPTING))?;
            sys::bpf::replace_program(link.as_fd(), file.as_fd()).map_err(of_system)?;
            let path = dir.join(PROGRAM);
            std::fs::remove_file(&path).map_err(of_system)?;
            program.pin(&path).map_err(BpfError::pin(ADOPTING))?;
            state
                .set(STATE_RELEASE, release, 0)
                .map_err(BpfError::of(ADOPTING))?;
            found = PinState::OtherProgram;
        }
        Self::of(programs).map(|steering| Some((steering, found)))
    }

    fn of(mut programs: Ebpf) -> Result<Self, BpfError> {
        Ok(Self {
            bindings: take(&mut programs, MAPS[0])?,
            sockets: take(&mut programs, MAPS[1])?,
            counts: Arc::new(Counts(Mutex::new(take(&mut programs, MAPS[2])?))),
            _programs: programs,
            pinned: None,
            replaced: None,
        })
    }

    /// The lock on the pins, if there are pins. It holds as long as any copy of the descriptor is
    /// open.
    pub fn lock(&self) -> Option<BorrowedFd<'_>> {
        let (_, _, pinned) = self.pinned.as_ref()?;
        Some(pinned.lock.as_fd())
    }

    /// Detaches replaced programs.
    pub fn detach_replaced(&mut self) -> Result<(), PinError> {
        let (Some(_), Some((home, instance, _))) = (self.replaced.take(), &self.pinned) else {
            return Ok(());
        };
        home.forget_old(instance)
    }

    /// Detaches the programs, pinned or not, which ends all bindings for new connections.
    pub fn end(&mut self) -> Result<(), PinError> {
        self.detach_replaced()?;
        match self.pinned.take() {
            Some((_, _, pinned)) => pins::remove(&pinned.dir),
            None => Ok(()),
        }
    }

    /// All bindings: address, prefix length, port and binding.
    pub fn bindings(&self) -> Result<Vec<(IpAddr, u8, u16, Binding)>, BpfError> {
        let all = self.bindings.iter().map(|entry| {
            let (key, binding) = entry.map_err(BpfError::of("reading the bindings"))?;
            let (address, port) = key.data().address_and_port();
            let prefix = key.prefix_len().saturating_sub(FIXED_BITS);
            // The daemon never writes longer prefixes.
            let prefix = u8::try_from(prefix).unwrap_or(u8::MAX);
            Ok((address, prefix, port, binding))
        });
        all.collect()
    }

    /// Puts an accept socket into the socket map. The kernel removes it when the socket is closed.
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

    /// Ends a binding. Accepted connections stay.
    pub fn unbind(&mut self, address: IpAddr, prefix: u8, port: u16) -> Result<(), BpfError> {
        self.bindings
            .remove(&key(address, prefix, port))
            .map_err(BpfError::of("removing a binding"))
    }

    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }
}

const ATTACHING: &str = "attaching to the network namespace";

/// Identifies the release of the programs, including what their instructions do not show.
fn release() -> u64 {
    BuildHasherDefault::<DefaultHasher>::new().hash_one(OBJECT)
}

fn pinning<'a, 'b>(loader: &'a mut EbpfLoader<'b>, dir: &Path) -> &'a mut EbpfLoader<'b> {
    for map in MAPS {
        loader.map_pin_path(map, dir.join(map));
    }
    loader
}

fn load(loader: &mut EbpfLoader<'_>, object: &[u8]) -> Result<Ebpf, BpfError> {
    let mut programs = loader
        .load(object)
        .map_err(BpfError::of("loading the maps"))?;
    program::<SkLookup>(&mut programs, "steer")?
        .load()
        .map_err(BpfError::of("loading the program"))?;
    Ok(programs)
}

fn key(address: IpAddr, prefix: u8, port: u16) -> Key<Destination> {
    Key::new(
        Destination::key_bits(prefix),
        Destination::of(address, port),
    )
}

/// A program of the object file.
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

/// Takes a map out of the object file.
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
