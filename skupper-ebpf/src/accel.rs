//! BPF programs of skupperd: the hop between a program of this host and the daemon, shortened.
//!
//! When both sockets of a connection are here, the bytes of one are queued on the other at once,
//! without TCP in between. What keeps them in order is said at [`shorten`].

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
        hop::{HopCounters, IPV4, Lane, MAX_CONNECTING, MAX_HOPS, Tuple, way},
    };

    /// From `linux/bpf.h`: memory for those entries only that there are.
    const NO_PREALLOC: u32 = 1;
    /// From `linux/bpf.h`: the state that a socket ends in.
    const TCP_CLOSE: u32 = 7;

    /// The network namespace of the daemon.
    #[unsafe(no_mangle)]
    static NETNS: u64 = 0;
    /// Bytes that may wait unread at the daemon before TCP and its window take over.
    #[unsafe(no_mangle)]
    static AHEAD: u64 = 0;
    /// So many bytes without any from the other socket are a stream, which TCP carries faster.
    #[unsafe(no_mangle)]
    static STREAK: u64 = 0;
    /// Directions: 1 for those to the daemon, 2 for those from it.
    #[unsafe(no_mangle)]
    static WAYS: u32 = 1;
    /// Not 0 for a fault that tests have to find: TCP is left for the short way again.
    #[unsafe(no_mangle)]
    static FAULT: u32 = 0;

    /// What the compiler can not know to be 0: for many zeros in a row it calls a function with a
    /// loop, and the verifier wants CAP_PERFMON for that.
    #[unsafe(no_mangle)]
    static ZERO: u32 = 0;

    /// Where listeners are reached: [`hop::on`], or 0 for those that are not accelerated. Where they
    /// have all ports nothing is accelerated, and that hides shorter prefixes.
    #[map]
    static DESTINATIONS: LpmTrie<Destination, u32> = LpmTrie::with_max_entries(MAX_BINDINGS, 1);

    /// Sockets of the daemon that connect to servers, by their cookies.
    #[map]
    static CONNECTING: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MAX_CONNECTING, 0);

    /// Both sockets of each connection.
    #[map]
    static SOCKETS: SockHash<Tuple> = SockHash::with_max_entries(2 * MAX_HOPS, 0);

    #[map]
    static LANES: HashMap<Tuple, Lane> = HashMap::with_max_entries(2 * MAX_HOPS, NO_PREALLOC);

    /// How much the daemon has read of what a socket has sent.
    #[map]
    static READ: LruHashMap<Tuple, u64> = LruHashMap::with_max_entries(MAX_CONNECTING, 0);

    #[map]
    static HOPS: PerCpuArray<HopCounters> = PerCpuArray::with_max_entries(1, 0);

    macro_rules! setting {
        // SAFETY: it is set before the program is loaded and constant from then on; the compiler
        // must not take the value that is written here.
        ($name:ident) => {
            unsafe { (&raw const $name).read_volatile() }
        };
    }

    /// Runs when a TCP connection of this host is established, at each of its sockets, before it can
    /// be used; and later for those that it took up.
    #[sock_ops]
    fn establish(ctx: SockOpsContext) -> u32 {
        match ctx.op() {
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => active(&ctx),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => passive(&ctx),
            BPF_SOCK_OPS_HDR_OPT_LEN_CB => sending(&ctx),
            BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == TCP_CLOSE => {
                let tuple = of_socket(&ctx);
                // Not there any more: nothing to remove.
                let _ = LANES.remove(&tuple);
                let _ = READ.remove(&tuple);
            }
            _ => {}
        }
        1
    }

    /// The socket that connects: its SYN was answered.
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
        // SAFETY: a field of the context. Bytes have gone with the SYN.
        if unsafe { (&raw const (*ctx.ops).data_segs_out).read_volatile() } != 0 {
            return count(|c| c.late += 1);
        }
        take_up(ctx, &tuple, way::ALONE, ours);
    }

    /// The socket that accepts: of a connection whose other socket was taken up before.
    #[inline(always)]
    fn passive(ctx: &SockOpsContext) {
        let tuple = of_socket(ctx);
        let Some(other) = LANES.get_ptr_mut(&tuple.peer()) else {
            return;
        };
        if !here(ctx) {
            return;
        }
        // SAFETY: entries are not reused while a program may look at them.
        let other = unsafe { &mut *other };
        if other.way == way::ALONE && take_up(ctx, &tuple, way::FRESH, other.ours == 0) {
            other.way = way::FRESH;
        }
    }

    /// TCP makes a segment for a socket that was taken up: if it has bytes, they have not gone the
    /// short way, whichever call they came by.
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
        // It has to be known once.
        let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
    }

    #[inline(always)]
    fn take_up(ctx: &SockOpsContext, tuple: &Tuple, way: u32, ours: bool) -> bool {
        let lane = lane(way, ours);
        // What TCP sends and when the socket ends is to be told from here on.
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

    /// A lane on which nothing has gone yet.
    #[inline(always)]
    fn lane(way: u32, ours: bool) -> Lane {
        let zero = setting!(ZERO);
        Lane {
            way,
            by_tcp: zero,
            ours: ours as u32,
            pad: zero,
            sent: zero.into(),
            read: zero.into(),
            mark: zero.into(),
            heard: zero.into(),
        }
    }

    /// Runs for every message of a socket that was taken up, in the sender's call.
    ///
    /// A direction goes the short way from its first message or never: what TCP has sent may still be
    /// on its way. It may leave it for TCP at any message and does not come back: a reader takes what
    /// came the short way first, and all of that was queued before TCP had anything.
    #[sk_msg]
    fn shorten(ctx: SkMsgContext) -> u32 {
        let tuple = of_message(&ctx);
        let Some(lane) = LANES.get_ptr_mut(&tuple) else {
            return SK_PASS;
        };
        // SAFETY: as in `passive`. A socket's messages come one at a time.
        let lane = unsafe { &mut *lane };
        if lane.way == way::TCP {
            if setting!(FAULT) == 0 {
                return SK_PASS;
            }
            lane.way = way::SHORT;
        }
        let direction = if lane.ours == 0 { 1 } else { 2 };
        if setting!(WAYS) & direction == 0 {
            lane.way = way::TCP;
            return SK_PASS;
        }
        if lane.way != way::SHORT && (lane.way != way::FRESH || lane.by_tcp != 0) {
            lane.way = way::TCP;
            count(|c| c.late += 1);
            return SK_PASS;
        }
        if !is_plain(&ctx) {
            lane.way = way::TCP;
            if let Some(other) = LANES.get_ptr_mut(&tuple.peer()) {
                // SAFETY: as in `passive`.
                unsafe { (*other).way = way::TCP };
            }
            count(|c| c.late += 1);
            return SK_PASS;
        }
        let size = u64::from(ctx.size());
        // The daemon bounds what it sends itself: it knows when leaving is harmless.
        if lane.ours == 0 && (is_stream(lane, &tuple, size) || !has_room(lane, &tuple, size)) {
            lane.way = way::TCP;
            count(|c| c.bulk += 1);
            return SK_PASS;
        }
        // Without the other socket the helper changes nothing: TCP says what is the matter.
        if SOCKETS.redirect_msg(&ctx, tuple.peer(), u64::from(BPF_F_INGRESS)) != i64::from(SK_PASS)
        {
            lane.way = way::TCP;
            count(|c| c.late += 1);
            return SK_PASS;
        }
        lane.way = way::SHORT;
        lane.sent += size;
        count(|c| {
            c.messages += 1;
            c.bytes += size;
        });
        SK_PASS
    }

    /// Whether a message can be read and is not the beginning of TLS: a program may have the kernel
    /// encrypt what it sends from then on, and that is not done on the short way.
    #[inline(always)]
    fn is_plain(ctx: &SkMsgContext) -> bool {
        /// The first bytes of a handshake of any version.
        const HANDSHAKE: [u8; 2] = [0x16, 0x03];
        let (data, end) = (ctx.data(), ctx.data_end());
        if data + 2 > end {
            // One byte, or pages of a file.
            return data < end && ctx.size() == 1;
        }
        // SAFETY: the two bytes are before the end, as the verifier has seen.
        unsafe { *(data as *const [u8; 2]) != HANDSHAKE }
    }

    /// Whether so much has gone without a word from the other socket.
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

    /// What waits at a socket that is not read has no bounds but this.
    #[inline(always)]
    fn has_room(lane: &mut Lane, tuple: &Tuple, size: u64) -> bool {
        if lane.sent + size <= lane.read + setting!(AHEAD) {
            return true;
        }
        if let Some(read) = READ.get_ptr(tuple) {
            // SAFETY: it may be an older number or that of another connection, which is no more than
            // was ever read on this one: numbers of a connection that has ended are removed.
            lane.read = unsafe { *read };
        }
        lane.sent + size <= lane.read + setting!(AHEAD)
    }

    #[inline(always)]
    fn here(ctx: &SockOpsContext) -> bool {
        // SAFETY: a context of this kind has a network namespace.
        setting!(NETNS) == unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
    }

    /// Whether both ends are on this host: the kernel gives a socket the address that it connects to
    /// if that is the host's own, or it has another of the loopback network.
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

    /// Reads a field of a context, each at its own place and in this order: of two reads that the
    /// compiler merges into one with a computed address the verifier says no.
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
                // IPv4 on a socket of IPv6: its other end may be of IPv4.
                if mapped && local6[0] == 0 && local6[1] == 0 {
                    family = IPV4;
                } else {
                    local = local6;
                    remote = remote6;
                }
            }
            // The port here is a number, that of the other end is as in a packet.
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
            // SAFETY: a processor runs one such program at a time and this is its own copy.
            add(unsafe { &mut *counters });
        }
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
