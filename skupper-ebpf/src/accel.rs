//! BPF programs of skupperd for acceleration of the hop between a program of this host and the
//! daemon.
//!
//! When both sockets of a connection are on this host, bytes sent on one are queued on the other at
//! once, bypassing TCP. [`shorten`] explains how their order is kept.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod rt;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{
            BPF_F_INGRESS, BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
            BPF_SOCK_OPS_HDR_OPT_LEN_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
            BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG,
            sk_action::SK_PASS,
        },
        helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
        macros::{map, sk_msg, sock_ops},
        maps::{HashMap, LpmTrie, LruHashMap, PerCpuArray, SockHash, lpm_trie::Key},
        programs::{SkMsgContext, SockOpsContext},
    };
    use skupper_ebpf::{
        ALL_PORTS, Destination, MAX_BINDINGS,
        hop::{HopCounters, IPV4, Lane, MAX_CONNECTING, MAX_HOPS, Tuple, lane_state},
    };

    /// From `linux/bpf.h`: allocate memory for existing entries only.
    const NO_PREALLOC: u32 = 1;
    /// From `linux/bpf.h`: the final state of a socket.
    const TCP_CLOSE: u32 = 7;

    /// The network namespace of the daemon.
    #[unsafe(no_mangle)]
    static NETNS: u64 = 0;
    /// Bytes that may wait unread at the daemon before TCP and its window take over.
    #[unsafe(no_mangle)]
    static AHEAD: u64 = 0;
    /// Bytes in one direction, without any in the other, after which the direction is a stream. TCP
    /// is faster for streams.
    #[unsafe(no_mangle)]
    static STREAK: u64 = 0;
    /// Accelerated directions: 1 to the daemon, 2 from it, 3 both.
    #[unsafe(no_mangle)]
    static DIRECTIONS: u32 = 1;
    /// Not 0 injects a fault that tests must detect: a direction returns from TCP to the
    /// accelerated path.
    #[unsafe(no_mangle)]
    static FAULT: u32 = 0;

    /// A zero that the compiler cannot see: for many constant zeros in a row it calls a function
    /// with a loop, and for that the verifier requires CAP_PERFMON.
    #[unsafe(no_mangle)]
    static ZERO: u32 = 0;

    /// Destinations of listeners: [`hop::on`], or 0 for those that are not accelerated. Entries for
    /// all ports are never accelerated, and hide shorter prefixes.
    #[map]
    static DESTINATIONS: LpmTrie<Destination, u32> = LpmTrie::with_max_entries(MAX_BINDINGS, 1);

    /// Sockets of the daemon that are connecting to servers, by cookie.
    #[map]
    static CONNECTING: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MAX_CONNECTING, 0);

    /// Both sockets of each connection.
    #[map]
    static SOCKETS: SockHash<Tuple> = SockHash::with_max_entries(2 * MAX_HOPS, 0);

    #[map]
    static LANES: HashMap<Tuple, Lane> = HashMap::with_max_entries(2 * MAX_HOPS, NO_PREALLOC);

    /// Bytes of each sending socket that the daemon has read.
    #[map]
    static READ: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(MAX_CONNECTING, 0);

    #[map]
    static HOPS: PerCpuArray<HopCounters> = PerCpuArray::with_max_entries(1, 0);

    macro_rules! setting {
        // SAFETY: the value is set before the program is loaded and constant from then on; the
        // compiler must not assume the initial value.
        ($name:ident) => {
            unsafe { (&raw const $name).read_volatile() }
        };
    }

    /// Runs for each socket of a TCP connection of this host when it is established, before it can
    /// be used, and later for registered sockets.
    #[sock_ops]
    fn establish(ctx: SockOpsContext) -> u32 {
        match ctx.op() {
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => active(&ctx),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => passive(&ctx),
            BPF_SOCK_OPS_HDR_OPT_LEN_CB => sending(&ctx),
            BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => {
                let tuple = of_socket(&ctx);
                // An error means that the entry does not exist.
                let _ = LANES.remove(&tuple);
                let _ = READ.remove(&tuple);
            }
            _ => {}
        }
        1
    }

    /// The connecting socket: its SYN was answered.
    #[inline(always)]
    fn active(ctx: &SockOpsContext) {
        // SAFETY: a context of this kind has a cookie.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        let ours = CONNECTING.get_ptr(&cookie).is_some();
        if ours {
            let _ = CONNECTING.remove(&cookie);
        }
        if !here(ctx) {
            return;
        }
        let tuple = of_socket(ctx);
        if !is_local(&tuple) || !ours && !is_listener(&tuple) {
            return;
        }
        // SAFETY: a field of the context. Not 0: data was sent with the SYN.
        if unsafe { (&raw const (*ctx.ops).data_segs_out).read_volatile() } != 0 {
            return count(|c| c.late += 1);
        }
        take_up(ctx, &tuple, lane_state::ALONE, ours);
    }

    /// The accepting socket, if the connecting one is registered.
    #[inline(always)]
    fn passive(ctx: &SockOpsContext) {
        let tuple = of_socket(ctx);
        let Some(other) = LANES.get_ptr_mut(&tuple.peer()) else {
            return;
        };
        if !here(ctx) {
            return;
        }
        // SAFETY: entries are not reused while a program runs.
        let other = unsafe { &mut *other };
        if other.state == lane_state::ALONE
            && take_up(ctx, &tuple, lane_state::FRESH, other.ours == 0)
        {
            other.state = lane_state::FRESH;
        }
    }

    /// TCP makes a segment for a registered socket. If it carries data, the data bypassed the
    /// message program, whichever system call sent it.
    #[inline(always)]
    fn sending(ctx: &SockOpsContext) {
        // SAFETY: a field of the context.
        let bytes = unsafe { (&raw const (*ctx.ops).skb_len).read_volatile() };
        if bytes == 0 {
            return;
        }
        if let Some(lane) = LANES.get_ptr_mut(&of_socket(ctx)) {
            // SAFETY: as in `passive`.
            unsafe { (*lane).by_tcp = 1 };
        }
        // The callback is needed only once.
        let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
    }

    #[inline(always)]
    fn take_up(ctx: &SockOpsContext, tuple: &Tuple, state: u32, ours: bool) -> bool {
        let lane = lane(state, ours);
        // From now on the kernel reports segments and the end of the socket.
        let told = BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
        if ctx.set_cb_flags(told as i32).is_err() || LANES.insert(tuple, &lane, 0).is_err() {
            return false;
        }
        // SAFETY: the context is valid for the run of the program.
        let socket = unsafe { &mut *ctx.ops };
        if SOCKETS
            .update(*tuple, socket, u64::from(BPF_NOEXIST))
            .is_err()
        {
            let _ = LANES.remove(tuple);
            return false;
        }
        count(|c| c.sockets += 1);
        true
    }

    /// The state of a socket that has sent nothing.
    #[inline(always)]
    fn lane(state: u32, ours: bool) -> Lane {
        let zero = setting!(ZERO);
        Lane {
            state,
            by_tcp: zero,
            ours: ours as u32,
            pad: zero,
            sent: zero.into(),
            read: zero.into(),
            mark: zero.into(),
            heard: zero.into(),
        }
    }

    /// Runs for every message of a registered socket, in the sender's system call.
    ///
    /// A direction is accelerated from its first message or never: bytes that TCP has sent may
    /// still be in flight. It may fall back to TCP at any message and never returns: a reader gets
    /// the redirected bytes first, and all of them were queued before TCP had any.
    #[sk_msg]
    fn shorten(ctx: SkMsgContext) -> u32 {
        let tuple = of_message(&ctx);
        let Some(lane) = LANES.get_ptr_mut(&tuple) else {
            return SK_PASS;
        };
        // SAFETY: as in `passive`. A socket's messages come one at a time.
        let lane = unsafe { &mut *lane };
        if lane.state == lane_state::TCP {
            if setting!(FAULT) == 0 {
                return SK_PASS;
            }
            lane.state = lane_state::SHORT;
        }
        let direction = if lane.ours == 0 { 1 } else { 2 };
        if setting!(DIRECTIONS) & direction == 0 {
            lane.state = lane_state::TCP;
            return SK_PASS;
        }
        if lane.state != lane_state::SHORT && (lane.state != lane_state::FRESH || lane.by_tcp != 0)
        {
            lane.state = lane_state::TCP;
            count(|c| c.late += 1);
            return SK_PASS;
        }
        if !is_plain(&ctx) {
            lane.state = lane_state::TCP;
            if let Some(other) = LANES.get_ptr_mut(&tuple.peer()) {
                // SAFETY: as in `passive`.
                unsafe { (*other).state = lane_state::TCP };
            }
            count(|c| c.late += 1);
            return SK_PASS;
        }
        let size = u64::from(ctx.size());
        // The daemon bounds its own direction, because it knows when a fallback is safe.
        if lane.ours == 0 && (is_stream(lane, &tuple, size) || !has_room(lane, &tuple, size)) {
            lane.state = lane_state::TCP;
            count(|c| c.bulk += 1);
            return SK_PASS;
        }
        // If the other socket is gone, the helper does nothing, and TCP reports the error.
        if SOCKETS.redirect_msg(&ctx, tuple.peer(), u64::from(BPF_F_INGRESS)) != i64::from(SK_PASS)
        {
            lane.state = lane_state::TCP;
            count(|c| c.late += 1);
            return SK_PASS;
        }
        lane.state = lane_state::SHORT;
        lane.sent += size;
        count(|c| {
            c.messages += 1;
            c.bytes += size;
        });
        SK_PASS
    }

    /// Whether a message is readable and does not begin a TLS handshake: the sender may enable
    /// kernel TLS afterwards, which redirected messages would bypass.
    #[inline(always)]
    fn is_plain(ctx: &SkMsgContext) -> bool {
        /// The first bytes of a handshake of any version.
        const HANDSHAKE: [u8; 2] = [0x16, 0x03];
        let (data, end) = (ctx.data(), ctx.data_end());
        if data + 2 > end {
            // One byte; otherwise pages of a file, which are not readable here.
            return data < end && ctx.size() == 1;
        }
        // SAFETY: the check above keeps the two bytes within bounds.
        unsafe { *(data as *const [u8; 2]) != HANDSHAKE }
    }

    /// Whether the direction has become a stream.
    #[inline(always)]
    fn is_stream(lane: &mut Lane, tuple: &Tuple, size: u64) -> bool {
        if lane.sent + size <= lane.mark + setting!(STREAK) {
            return false;
        }
        // SAFETY: as in `passive`.
        let heard = LANES
            .get_ptr(&tuple.peer())
            .map(|other| unsafe { (*other).sent });
        let answered = heard.is_some_and(|heard| heard != lane.heard);
        lane.mark = lane.sent;
        lane.heard = heard.unwrap_or(lane.heard);
        !answered
    }

    /// Bounds the unread bytes of the receiver; nothing else does.
    #[inline(always)]
    fn has_room(lane: &mut Lane, tuple: &Tuple, size: u64) -> bool {
        if lane.sent + size <= lane.read + setting!(AHEAD) {
            return true;
        }
        if let Some(read) = READ.get_ptr(tuple) {
            // SAFETY: the number may be outdated, but never higher than the bytes read on this
            // connection: numbers of ended connections are removed.
            lane.read = unsafe { *read };
        }
        lane.sent + size <= lane.read + setting!(AHEAD)
    }

    #[inline(always)]
    fn here(ctx: &SockOpsContext) -> bool {
        // SAFETY: a context of this kind has a network namespace.
        setting!(NETNS) == unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
    }

    /// Whether both ends are on this host: then both addresses are the same, because the kernel
    /// picks the local destination as source, or both are loopback addresses.
    #[inline(always)]
    fn is_local(tuple: &Tuple) -> bool {
        let loopback = |address: &[u32; 4]| address[0].to_be() >> 24 == 127;
        let same = tuple.local[0] == tuple.remote[0]
            && tuple.local[1] == tuple.remote[1]
            && tuple.local[2] == tuple.remote[2]
            && tuple.local[3] == tuple.remote[3];
        same || tuple.family == IPV4 && loopback(&tuple.local) && loopback(&tuple.remote)
    }

    /// Whether a socket connects to an accelerated listener.
    #[inline(always)]
    fn is_listener(tuple: &Tuple) -> bool {
        let version = if tuple.family == IPV4 { 4 } else { 6 };
        let to = Destination::tcp(version, tuple.remote, tuple.ports as u16);
        let all = Destination::tcp(version, tuple.remote, ALL_PORTS);
        let of = |to| {
            let found = DESTINATIONS.get(Key::new(Destination::key_bits(128), to));
            found.map_or(0, |on| *on)
        };
        let on = of(to);
        on != 0 && of(all) <= on
    }

    /// Reads the fields of a context one by one in this order: the verifier rejects two reads that
    /// the compiler merges into one with a computed address.
    macro_rules! tuple {
        ($context:expr) => {{
            macro_rules! field {
                // SAFETY: the context is valid for the run of the program.
                ($place:expr) => {
                    unsafe { (&raw const $place).read_volatile() }
                };
            }
            let context = $context;
            let mut family = field!((*context).family);
            let zero = setting!(ZERO);
            let mut local = [field!((*context).local_ip4), zero, zero, zero];
            let mut remote = [field!((*context).remote_ip4), zero, zero, zero];
            if family != IPV4 {
                let mapped = field!((*context).local_ip6[2]) == u32::from_be(0xffff);
                let local6 = [
                    field!((*context).local_ip6[0]),
                    field!((*context).local_ip6[1]),
                    field!((*context).local_ip6[2]),
                    field!((*context).local_ip6[3]),
                ];
                let remote6 = [
                    field!((*context).remote_ip6[0]),
                    field!((*context).remote_ip6[1]),
                    field!((*context).remote_ip6[2]),
                    field!((*context).remote_ip6[3]),
                ];
                // IPv4 on an IPv6 socket: the other end may be an IPv4 socket.
                if mapped && local6[0] == 0 && local6[1] == 0 {
                    family = IPV4;
                } else {
                    local = local6;
                    remote = remote6;
                }
            }
            // The local port is in host byte order, the remote one in network byte order.
            let there = u32::from_be(field!((*context).remote_port)) & 0xffff;
            Tuple {
                family,
                ports: field!((*context).local_port) << 16 | there,
                local,
                remote,
            }
        }};
    }

    #[inline(always)]
    fn of_socket(ctx: &SockOpsContext) -> Tuple {
        tuple!(ctx.ops)
    }

    #[inline(always)]
    fn of_message(ctx: &SkMsgContext) -> Tuple {
        tuple!(ctx.msg)
    }

    #[inline(always)]
    fn count(add: impl FnOnce(&mut HopCounters)) {
        if let Some(counters) = HOPS.get_ptr_mut(0) {
            // SAFETY: the copy belongs to this processor, which runs one such program at a time.
            add(unsafe { &mut *counters });
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
