//! Packets that wait when something ends, stops, dies or goes away, and faults together.
#![expect(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]
#![expect(clippy::cast_precision_loss, reason = "spans of a test are far below 2^52 ns")]

mod line;

use std::{
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use chaos_agent::engine::{Engine, EngineOptions};
use chaos_tests::{
    chaos::{self, Chaos},
    lab::{
        alone,
        cgroup::Cgroup,
        process::{Process, wait_until},
        shapes::{self, A4, A6, B4, B6, Pair},
    },
    measure::{
        stats::check_rate,
        wait::{Arrival, now_ns, quantile},
    },
    require_root,
    snapshot::Snapshot,
};
use nix::sys::signal::Signal;

use line::{Flow, rule};

/// A held packet leaves within 10 ms of the end of its rule; on a machine that is shared, later.
const RELEASE_BOUND_MS: f64 = 100.0;

/// What was sent while a rule held it for far longer, and after the rule had ended: all of it arrives, in
/// order, and what was held within moments.
fn check_release(what: &str, arrivals: &[Arrival], sent: u32) {
    let numbers: Vec<u32> = arrivals.iter().map(|arrival| arrival.number).collect();
    let held = arrivals.iter().filter(|arrival| arrival.took_ms() > 50.0).count();
    let first = arrivals[0].came_ns;
    let last = arrivals[held.max(1) - 1].came_ns;
    let took = (last - first) as f64 / 1e6;
    println!("{what}: {held} of {sent} were held, and came within {took:.2} ms of each other");
    assert!(numbers.is_sorted(), "{what}: the order is not kept: {numbers:?}");
    assert_eq!(numbers.len(), sent as usize, "{what}: something was lost");
    assert!(held > 50, "{what}: only {held} were held");
    assert!(took < RELEASE_BOUND_MS, "{what}: the first to the last of what was held: {took} ms");
    // The first that passed untouched was sent after the end.
    let direct = arrivals.iter().find(|arrival| arrival.took_ms() < 1.0).unwrap();
    let behind = last.saturating_sub(direct.sent_ns) as f64 / 1e6;
    println!("{what}: the last left {behind:.2} ms after the first that was not held was sent");
    assert!(behind < RELEASE_BOUND_MS, "{what}: {behind} ms");
}

#[test]
fn a_rule_that_expires_lets_go_in_order() {
    require_root!();
    let _alone = alone().unwrap();
    for flags in ["--delay 20s", "--delay 20s±10s"] {
        let pair = Pair::new().unwrap();
        let flow = Flow::new(&pair);
        let arguments = format!("inject netns:{} --for 2s {flags}", pair.a.name());
        let chaos = Chaos::start(&arguments).unwrap();
        let sent = flow.send_for(Duration::from_millis(3200));
        let arrivals = flow.arrived();
        chaos.finish(Duration::from_secs(5)).unwrap();
        check_release(&format!("expired, {flags}"), &arrivals, sent);
    }
}

#[test]
fn a_rule_that_is_interrupted_or_killed_by_stop_lets_go() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let flow = Flow::new(&pair);
    let chaos = Chaos::inject(&pair.a, "--delay 20s").unwrap();
    let (sent, rules) = thread::scope(|scope| {
        let sender = scope.spawn(|| flow.send_for(Duration::from_millis(1500)));
        thread::sleep(Duration::from_millis(500));
        let rules = chaos.stop().unwrap();
        (sender.join().unwrap(), rules)
    });
    check_release("SIGINT", &flow.arrived(), sent);
    assert_eq!(rules[0].both("unheld_packets"), 0, "{rules:?}");

    let flow = Flow::new(&pair);
    let mut chaos = Chaos::inject(&pair.a, "--delay 20s").unwrap();
    flow.send_for(Duration::from_millis(300));
    let began = now_ns();
    let output = chaos::run("stop --all").unwrap();
    assert!(output.status.success(), "{output:?}");
    let arrivals = flow.arrived();
    assert!(arrivals.len() > 100 && arrivals.is_sorted_by_key(|arrival| arrival.number));
    assert_eq!(arrivals.len() as u64, u64::from(flow.count()), "stop --all: something was lost");
    let took = (arrivals[arrivals.len() - 1].came_ns - began) as f64 / 1e6;
    println!("stop --all: all was out {took:.1} ms after the command was called");
    assert!(took < 1500.0, "{took} ms");
    wait_until("the command ends", Duration::from_secs(2), || !chaos.process().is_running()).unwrap();
}

#[test]
fn a_rule_that_is_replaced_lets_go_in_order() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for (what, next) in
        [("a shorter delay", vec![("delay", "5ms")]), ("a loss of nothing", vec![("loss", "0%")])]
    {
        let flow = Flow::new(&pair);
        let mut engine =
            Engine::start(&[rule(&pair, &[("delay", "20s")])], &EngineOptions::default()).unwrap();
        let sent = thread::scope(|scope| {
            let sender = scope.spawn(|| flow.send_for(Duration::from_secs(1)));
            thread::sleep(Duration::from_millis(500));
            engine.replace(&[rule(&pair, &next)]).unwrap();
            sender.join().unwrap()
        });
        check_release(what, &flow.arrived(), sent);
        let has_line = pair.a.run("ip link").unwrap().contains("chaos-d");
        assert_eq!(has_line, next[0].0 == "delay", "{what}: the line is there if a rule needs it");
        engine.stop().unwrap();
    }
}

#[test]
fn a_partition_set_later_acts_on_what_waits() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let delay = rule(&pair, &[("delay", "600ms")]);
    let flow = Flow::new(&pair);
    let mut engine = Engine::start(std::slice::from_ref(&delay), &EngineOptions::default()).unwrap();
    flow.send_for(Duration::from_millis(100));
    let half = flow.count();
    thread::sleep(Duration::from_millis(100));
    engine.replace(&[delay, rule(&pair, &[("partition", "")])]).unwrap();
    flow.send_for(Duration::from_millis(100));
    let arrivals = flow.arrived();
    let stats = engine.stop().unwrap();
    assert_eq!(arrivals, [], "{half} were held when the partition was set");
    assert_eq!(stats[0].egress.delayed_packets, u64::from(flow.count()), "{stats:?}");
    assert_eq!(stats[1].egress.dropped_packets, u64::from(flow.count()), "{stats:?}");
}

/// The second is a program of its own, which did not see the packets when they left.
#[test]
fn a_partition_of_a_second_command_acts_on_what_waits() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let flow = Flow::new(&pair);
    let delay = Chaos::inject(&pair.a, "--delay 5s").unwrap();
    flow.send_for(Duration::from_millis(100));
    let partition = Chaos::inject(&pair.a, "--partition --direction egress").unwrap();
    flow.send_for(Duration::from_millis(50));
    let late = Duration::from_secs(6);
    thread::sleep(late);
    let arrivals = flow.arrived();
    let (held, cut) = (delay.stop().unwrap(), partition.stop().unwrap());
    assert_eq!(arrivals, [], "held {held:?}, cut {cut:?}");
    assert_eq!(cut[0].both("dropped_packets"), u64::from(flow.count()), "{cut:?}, {held:?}");
}

/// What waited has lost its socket: its owner is known by its conversation.
#[test]
fn a_partition_of_a_cgroup_acts_on_what_waits() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let cgroup = Cgroup::new().unwrap();
    let on_cgroup = |flags: &str| Chaos::start(&format!("inject cgroup:{} --for 1m {flags}", cgroup.name()));
    let mut command = Command::new("bash");
    let send = format!(
        "exec 3<>/dev/udp/{B4}/9; sleep 1.5; for i in {{1..20}}; do echo $i >&3; sleep 0.01; done; sleep 20"
    );
    command.args(["-c", &send]);
    let _sender = Process::start(pair.a.inside(cgroup.inside(command))).unwrap();
    let delay = on_cgroup("--delay 4s --proto udp").unwrap();
    thread::sleep(Duration::from_secs(2));
    let partition = on_cgroup("--partition --direction egress").unwrap();
    thread::sleep(Duration::from_secs(5));
    let (held, cut) = (delay.stop().unwrap(), partition.stop().unwrap());
    assert_eq!(held[0].both("delayed_packets"), 20, "{held:?}");
    assert_eq!(cut[0].both("dropped_packets"), 20, "{cut:?}");
}

/// The device's queue is full: what it drops is counted, to the packet, and told.
#[test]
fn what_the_device_drops_is_told() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let flow = Flow::new(&pair);
    let mut chaos = Chaos::inject(&pair.a, "--delay 2s").unwrap();
    chaos.process().signal(Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    flow.send_at_once(14_000);
    let took = began.elapsed();
    chaos.process().signal(Signal::SIGCONT).unwrap();
    let mut told = 0;
    while let Ok(event) = chaos.wait_for("event", Duration::from_secs(3)) {
        let message = event["message"].as_str().unwrap();
        if message.contains("were dropped") {
            told += message.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    let arrivals = flow.arrived();
    let rules = chaos.stop().unwrap();
    println!("{} sent in {took:?}, {} came, {told} dropped as told", flow.count(), arrivals.len());
    assert!(took > Duration::from_millis(450) || told > 0, "nothing was too much");
    assert_eq!(arrivals.len() as u64 + told, u64::from(flow.count()), "{rules:?}");
}

/// Longer than 100 ms: what became due meanwhile is of no use to anybody.
#[test]
fn what_is_overdue_after_a_stop_is_dropped_and_told() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let flow = Flow::new(&pair);
    let mut chaos = Chaos::inject(&pair.a, "--delay 100ms").unwrap();
    flow.send_for(Duration::from_millis(50));
    let overdue = flow.count();
    chaos.process().signal(Signal::SIGSTOP).unwrap();
    thread::sleep(Duration::from_millis(400));
    chaos.process().signal(Signal::SIGCONT).unwrap();
    flow.send_for(Duration::from_millis(50));
    let arrivals = flow.arrived();
    let event = chaos.wait_for("event", Duration::from_secs(5)).unwrap().to_string();
    chaos.stop().unwrap();
    println!("{event}");
    assert!(event.contains(&format!("{overdue} more than 100 ms overdue")), "{event}");
    let numbers = arrivals.iter().map(|arrival| arrival.number);
    assert!(numbers.eq(overdue..flow.count()), "those sent afterwards, and no others: {arrivals:?}");
}

#[test]
fn with_its_thread_stopped_the_way_is_direct_again() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    for flags in ["--delay 50ms", "--delay 50ms --attach clsact", "--delay 20ms±10ms"] {
        let flow = Flow::new(&pair);
        let mut chaos = Chaos::inject(&pair.a, flags).unwrap();
        flow.send_for(Duration::from_millis(200));
        chaos.process().signal(Signal::SIGSTOP).unwrap();
        let stopped = now_ns();
        flow.send_for(Duration::from_millis(1500));
        chaos.process().signal(Signal::SIGCONT).unwrap();
        thread::sleep(Duration::from_millis(100));
        let back = flow.count();
        flow.send_for(Duration::from_millis(100));
        let arrivals = flow.arrived();
        let event = chaos.wait_for("event", Duration::from_secs(5)).unwrap().to_string();
        let rules = chaos.stop().unwrap();
        let direct = arrivals.iter().find(|a| a.sent_ns > stopped && a.took_ms() < 10.0).unwrap();
        let took = (direct.sent_ns - stopped) as f64 / 1e6;
        println!("{flags}: direct {took:.0} ms after SIGSTOP; {event}");
        assert!(took < 1000.0, "{flags}: {took} ms");
        assert!(event.contains("passed untouched") || event.contains("dropped"), "{event}");
        assert!(rules[0].both("unheld_packets") > 100, "{flags}: {rules:?}");
        let after: Vec<&Arrival> = arrivals.iter().filter(|arrival| arrival.number >= back).collect();
        assert!(after.len() > 50 && after.iter().all(|a| a.took_ms() > 9.5), "{flags}: it acts again");
    }
}

#[test]
fn killed_with_packets_held_nothing_is_left_after_a_second() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    pair.a.run(&format!("ping -c 1 -W 2 -q {B4}")).unwrap();
    let namespaces = [&pair.a, &pair.b];
    let before = Snapshot::before(&namespaces).unwrap();
    for attach in ["tcx", "clsact"] {
        for rule in ["--delay 100ms", "--delay 20s±1s --direction both", "--rate 1Mbit/s --direction ingress"]
        {
            let chaos = Chaos::inject(&pair.a, &format!("{rule} --attach {attach}")).unwrap();
            let mut ping = pair.a.command(&format!("ping -q -i 0.005 {B4}"));
            ping.stdout(Stdio::null());
            let _traffic = Process::start(ping).unwrap();
            thread::sleep(Duration::from_millis(150));
            chaos.kill().unwrap();
            let killed = Instant::now();
            before.settle(&namespaces, Duration::from_secs(1)).unwrap();
            println!("{rule} --attach {attach}: as before {:?} after SIGKILL", killed.elapsed());
            pair.a.run(&format!("ping -c 3 -i 0.01 -W 1 -q {B4}")).unwrap();
        }
    }
}

/// Goes down and up, vanishes and comes back, and so does the line itself.
#[test]
fn the_line_survives_its_devices() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    let mut engine = Engine::start(&[rule(&pair, &[("delay", "30ms")])], &EngineOptions::default()).unwrap();
    // Until the way is late by what was asked.
    let mut is_late = |what: &str| {
        let began = Instant::now();
        loop {
            for event in engine.tick().unwrap() {
                println!("{what}: {event:?}");
            }
            let flow = Flow::new(&pair);
            flow.send_for(Duration::from_millis(40));
            let took: Vec<f64> = flow.arrived().iter().map(Arrival::took_ms).collect();
            if !took.is_empty() && quantile(&took, 0.1) > 29.5 && quantile(&took, 0.5) < 60.0 {
                println!("{what}: late again after {:?}", began.elapsed());
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(5), "{what}: {took:?}");
        }
    };
    is_late("at first");
    pair.a.run("ip link set va down").unwrap();
    pair.a.run("ip link set va up").unwrap();
    pair.a.run(&format!("ip addr add {A6}/64 dev va nodad")).ok();
    is_late("down and up");
    pair.a.run("ip link del va").unwrap();
    shapes::join(&pair.a, "va", &pair.b, "vb", None).unwrap();
    shapes::address(&pair.a, "va", A4, A6).unwrap();
    shapes::address(&pair.b, "vb", B4, B6).unwrap();
    is_late("another veth");
    let line = line::device(&pair.a).expect("there is a line");
    pair.a.run(&format!("ip link del {line}")).unwrap();
    is_late("the line was deleted");
    engine.replace(&[rule(&pair, &[("loss", "0%")])]).unwrap();
    assert_eq!(line::device(&pair.a), None, "the line goes with the last rule that needs it");
    engine.replace(&[rule(&pair, &[("delay", "1ms")])]).unwrap();
    assert!(line::device(&pair.a).is_some());
    engine.stop().unwrap();
    assert_eq!(line::device(&pair.a), None);
}

/// The descriptor of the line must not keep a namespace alive.
#[test]
fn deleting_a_namespace_with_held_packets_frees_its_peer() {
    require_root!();
    let _alone = alone().unwrap();
    let Pair { a, b } = Pair::new().unwrap();
    let pair = Pair { a, b };
    let flow = Flow::new(&pair);
    let chaos = Chaos::inject(&pair.a, "--delay 20s").unwrap();
    flow.send_for(Duration::from_millis(50));
    drop(flow);
    let Pair { a, b } = pair;
    a.delete().unwrap();
    let gone = || b.run("ip link show vb").is_err();
    let took = wait_until("the peer's end of the veth is gone", Duration::from_secs(2), gone).unwrap();
    println!("the peer's end was gone after {took:?}");
    drop(chaos);
}

/// One rule with all, or one rule each: the same packets are lost, wait for the link and are late.
#[test]
fn faults_compose_in_one_rule_and_in_several() {
    require_root!();
    let _alone = alone().unwrap();
    let pair = Pair::new().unwrap();
    // A datagram a millisecond of 142 bytes in its frame is 1.136 Mbit/s: the link never fills.
    let all = [("loss", "10%"), ("delay", "30ms"), ("rate", "2Mbit/s")];
    let each: Vec<_> = all.iter().map(|fault| rule(&pair, &[*fault])).collect();
    for (what, rules) in [("one rule", vec![rule(&pair, &all)]), ("three rules", each)] {
        let flow = Flow::new(&pair);
        let engine = Engine::start(&rules, &EngineOptions::default()).unwrap();
        let sent = flow.send_for(Duration::from_secs(3));
        let arrivals = flow.arrived();
        let stats = engine.stop().unwrap();
        let lost = u64::from(sent) - arrivals.len() as u64;
        let took: Vec<f64> = arrivals.iter().map(Arrival::took_ms).collect();
        // 142 bytes take 0.568 ms at 2 Mbit/s.
        println!("{what}: {lost} of {sent} lost, median {:.2} ms", quantile(&took, 0.5));
        check_rate(what, lost, u64::from(sent), 0.1).unwrap();
        assert!(quantile(&took, 0.0) > 30.4, "{what}: {}", quantile(&took, 0.0));
        assert!(quantile(&took, 0.5) < 36.0, "{what}: {}", quantile(&took, 0.5));
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.number), "{what}");
        let dropped: u64 = stats.iter().map(|rule| rule.egress.dropped_packets).sum();
        assert_eq!(dropped, lost, "{what}: {stats:?}");
    }
}
