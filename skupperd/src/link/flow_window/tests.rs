use super::*;

const KIB: usize = 1024;

fn no_clock() -> Instant {
    panic!("the clock was read without need")
}

fn open() -> FlowWindow {
    let mut window = FlowWindow::new();
    window.set_phase(SendPhase::Open);
    window
}

#[test]
fn each_phase_has_its_limit() {
    let mut window = FlowWindow::new();
    assert_eq!(window.room(), 0);
    window.set_phase(SendPhase::Early);
    assert_eq!(window.room(), EARLY);
    window.sent(EARLY as usize - 1, no_clock);
    assert_eq!(window.room(), 1);
    window.sent(1, no_clock);
    assert_eq!(window.room(), 0);
    window.set_phase(SendPhase::Open);
    assert_eq!(window.room(), WINDOW - EARLY);
}

#[test]
fn the_window_closes_at_its_last_byte_and_opens_by_what_is_acknowledged() {
    let mut window = open();
    window.sent(WINDOW as usize - 1, no_clock);
    assert_eq!(window.room(), 1);
    window.sent(1, no_clock);
    assert_eq!(window.room(), 0);
    assert!(window.acknowledged(1, no_clock));
    assert_eq!(window.room(), 1);
    assert!(window.acknowledged(WINDOW, no_clock));
    assert_eq!(window.room(), WINDOW);
}

#[test]
fn an_acknowledgement_counts_once_and_never_beyond_what_was_sent() {
    let mut window = open();
    window.sent(1000, no_clock);
    for invalid in [0, 1001, u64::MAX] {
        assert!(!window.acknowledged(invalid, no_clock), "{invalid}");
        assert_eq!(window.room(), WINDOW - 1000);
    }
    assert!(window.acknowledged(1000, no_clock));
    assert!(!window.acknowledged(1000, no_clock));
    assert!(!window.acknowledged(999, no_clock));
    assert_eq!(window.room(), WINDOW);
}

#[test]
fn offsets_at_the_end_of_their_range_do_not_wrap() {
    let mut window = open();
    window.sent(usize::MAX, no_clock);
    assert_eq!(window.room(), 0);
    assert!(window.acknowledged(u64::MAX - 5, no_clock));
    assert_eq!(window.room(), 0);
    window.sent(10, no_clock);
    assert_eq!(window.room(), 0);
    assert!(window.acknowledged(u64::MAX, no_clock));
    assert_eq!(window.room(), 0);
}

/// Sends what the window allows and acknowledges it a round trip later, ten times.
fn after_round_trips(window: &mut FlowWindow, rtt: Duration) {
    let mut now = Instant::now();
    let mut offset = 0;
    for _ in 0..10 {
        let room = window.room();
        while window.room() > 0 {
            let n = window.room().min(16 * KIB as u64);
            window.sent(n as usize, || now);
            offset += n;
        }
        now += rtt;
        assert!(window.acknowledged(offset, || now));
        assert!(window.room() >= room, "the window shrank");
    }
}

#[test]
fn a_window_between_our_own_kind_follows_the_path_up_to_its_maximum() {
    let mut window = open();
    window.follow_path();
    assert_eq!(window.room(), NATIVE_WINDOW);
    after_round_trips(&mut window, Duration::from_millis(100));
    assert_eq!(window.room(), MAX_WINDOW);
}

#[test]
fn a_window_is_never_more_than_twice_what_was_acknowledged() {
    // Receivers of streams rely on it.
    let mut window = open();
    window.follow_path();
    let mut now = Instant::now();
    let mut offset = 0;
    for round in 1..200 {
        while window.room() > 0 {
            let n = window.room().min(8 * KIB as u64);
            window.sent(n as usize, || now);
            offset += n;
        }
        now += Duration::from_micros(317 * round);
        window.acknowledged(offset - offset % 7, || now);
        assert!(window.size <= NATIVE_WINDOW.max(2 * window.confirmed));
    }
}

#[test]
fn a_slow_reader_keeps_a_small_window() {
    let mut window = open();
    window.follow_path();
    let mut now = Instant::now();
    window.sent(window.room() as usize, || now);
    // The first bytes are acknowledged in a millisecond, the rest at 64 KiB a second.
    now += Duration::from_millis(1);
    window.acknowledged(1, || now);
    for offset in [64 * KIB as u64, 128 * KIB as u64, 192 * KIB as u64] {
        now += Duration::from_secs(1);
        assert!(window.acknowledged(offset, || now));
    }
    assert_eq!(window.size, NATIVE_WINDOW);
}

#[test]
fn bursts_do_not_inflate_the_rate() {
    let mut window = open();
    window.follow_path();
    let now = Instant::now();
    window.sent(NATIVE_WINDOW as usize, || now);
    // All at once, in no time.
    assert!(window.acknowledged(NATIVE_WINDOW, || now));
    assert_eq!(window.room(), NATIVE_WINDOW);
}

#[test]
fn a_receiver_takes_the_window_and_what_a_read_may_add_and_no_byte_more() {
    let mut window = ReceiveWindow::default();
    assert!(window.receive((WINDOW + OVERSHOOT) as usize));
    assert!(!window.receive(1));
    window.acknowledge(1);
    assert!(window.receive(0));
    assert!(!window.receive(1));
}

#[test]
fn a_sender_that_ignores_the_window_is_detected() {
    for (ignores, expected) in [(true, false), (false, true)] {
        let (mut sender, mut receiver) = (open(), ReceiveWindow::default());
        let mut honest = true;
        for _ in 0..1000 {
            if sender.room() == 0 && !ignores {
                break;
            }
            sender.sent(16 * KIB, no_clock);
            honest &= receiver.receive(16 * KIB);
        }
        assert_eq!(honest, expected);
    }
}

#[test]
fn a_receiver_never_refuses_a_sender_of_our_own_kind() {
    let (mut sender, mut receiver) = (open(), ReceiveWindow::default());
    sender.follow_path();
    let mut now = Instant::now();
    let mut sent = 0;
    for round in 0..300 {
        while sender.room() > 0 {
            let n = sender.room().min(16 * KIB as u64);
            sender.sent(n as usize, || now);
            sent += n;
            assert!(receiver.receive(n as usize), "round {round}");
        }
        now += Duration::from_millis(20);
        let offset = sent - round % 1000;
        receiver.acknowledge(offset);
        sender.acknowledged(offset, || now);
    }
    assert_eq!(sender.size, MAX_WINDOW, "the window has grown");
}

#[test]
fn acknowledgements_of_a_lying_receiver_do_not_wrap_the_window() {
    let mut window = ReceiveWindow::default();
    assert!(window.receive(1000));
    window.acknowledge(u64::MAX);
    window.acknowledge(1);
    assert_eq!(window.acknowledged, 1000);
    assert!(!window.receive(usize::MAX));
    assert!(!window.receive(usize::MAX));
}
