//! Assigns connections to the daemon's accept sockets by destination.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    macros::{map, sk_lookup},
    maps::{LpmTrie, PerCpuArray, SockMap, lpm_trie::Key},
    programs::SkLookupContext,
};
use skupper_ebpf::{
    ALL_PORTS, Binding, Counters, Destination, FIRST, LEFT_ALONE, LIFE, LISTENERS, MAX_BINDINGS,
    MAX_COUNTERS, MAX_SOCKETS, TCP, UNBOUND, nearer, spread,
};

/// From `linux/socket.h`.
const AF_INET: u32 = 2;

#[map]
static BINDINGS: LpmTrie<Destination, Binding> = LpmTrie::with_max_entries(MAX_BINDINGS, 0);

#[map]
static SOCKETS: SockMap = SockMap::with_max_entries(MAX_SOCKETS, 0);

#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(MAX_COUNTERS, 0);

/// Runs for every new connection to an address of this network namespace. Connections without a
/// binding are left alone. Connections with a binding but without a socket are refused, never
/// passed on to another program that has the port, as long as a process owns the bindings.
#[sk_lookup]
fn steer(ctx: SkLookupContext) -> u32 {
    // SAFETY: the kernel passes a context that is valid for the run of the program. The fields are
    // read one by one in this order: the verifier rejects two reads that the compiler merges into
    // one with a computed address.
    macro_rules! field {
        ($($path:tt)+) => { unsafe { (&raw const (*ctx.lookup).$($path)+).read_volatile() } };
    }
    if field!(protocol) != TCP {
        return SK_PASS;
    }
    // Fields of the other address family are zero.
    let local = [
        field!(local_ip4) | field!(local_ip6[0]),
        field!(local_ip6[1]),
        field!(local_ip6[2]),
        field!(local_ip6[3]),
    ];
    let remote = [
        field!(remote_ip4) | field!(remote_ip6[0]),
        field!(remote_ip6[1]),
        field!(remote_ip6[2]),
        field!(remote_ip6[3]),
    ];
    // The upper half of the field is zero.
    let port = field!(local_port) as u16;
    let version = if field!(family) == AF_INET { 4 } else { 6 };
    let find = |port| {
        let destination = Destination::tcp(version, local, port);
        BINDINGS.get(Key::new(Destination::key_bits(128), destination))
    };
    let named = nearer(find(port), find(ALL_PORTS));
    let Some(binding) = named.filter(|binding| binding.sockets != LEFT_ALONE) else {
        count(UNBOUND, |counters| counters.passed += 1);
        return SK_PASS;
    };
    let index = binding.socket(spread(remote, u32::from(field!(remote_port))));
    if binding.sockets != 0 && SOCKETS.redirect_sk_lookup(&ctx, index, 0).is_ok() {
        count_binding(binding, |counters| counters.steered += 1);
        SK_PASS
    } else if SOCKETS.redirect_sk_lookup(&ctx, LIFE, 0).is_ok() {
        // For a refused connection any of the sockets' bindings would do.
        count_binding(binding, |counters| counters.refused += 1);
        SK_DROP
    } else {
        count(UNBOUND, |counters| counters.passed += 1);
        SK_PASS
    }
}

/// Updates the counters of a binding, and those of all listeners if it belongs to one.
#[inline(always)]
fn count_binding(binding: &Binding, add: impl Fn(&mut Counters)) {
    if binding.slot >= FIRST {
        count(LISTENERS, &add);
    }
    count(binding.slot, &add);
}

#[inline(always)]
fn count(slot: u32, add: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the copy belongs to this processor, which runs one such program at a time.
        add(unsafe { &mut *counters });
    }
}
