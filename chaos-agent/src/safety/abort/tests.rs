use proptest::prelude::*;

use super::{kernel::Tcp, *};

fn read(text: &str) -> Abort {
    text.parse().unwrap()
}

#[test]
fn conditions_are_read() {
    let http =
        read("http=http://10.0.0.1:8080/health?x=1,status=200,within=500ms,every=2s,fails=2/4,in=target");
    let Look::Http { authority, path, status, within } = &http.look else { panic!("{http:?}") };
    assert_eq!((authority.as_str(), path.as_str(), *status), ("10.0.0.1:8080", "/health?x=1", (200, 200)));
    assert_eq!((*within, http.every), (Duration::from_millis(500), Duration::from_secs(2)));
    assert_eq!((http.breaches, http.of, http.in_target), (2, 4, true));
    let plain = read("http=http://[fd00::1]");
    assert!(
        matches!(&plain.look, Look::Http { authority, path, .. } if authority == "[fd00::1]:80" && path == "/")
    );
    let command = read("every=100ms,fails=1,command=test -e /x,y && exit 3");
    assert!(matches!(&command.look, Look::Command { command, .. } if command == "test -e /x,y && exit 3"));
    assert_eq!((command.breaches, command.of), (1, 1));
    assert_eq!(read("retransmits=+5%").look, Look::Retransmits { margin: 0.05 });
    assert_eq!(read("handshakes=0.5").look, Look::Handshakes { share: 0.5 });
}

#[test]
fn what_is_wrong_is_told() {
    for (text, says) in [
        ("", "write http="),
        ("ping=10.0.0.1", "write http="),
        ("http=https://x/", "https"),
        ("http=http://x:0/", "HOST:PORT"),
        ("http=http://x/,status=99", "200-399"),
        ("tcp=10.0.0.1", "HOST:PORT"),
        ("tcp=fd00::1:80", "[fd00::1]:80"),
        ("tcp=x:1,status=200", "no such option"),
        ("handshakes=200%", "a share"),
        ("handshakes=1%,within=1s", "no such option"),
        ("tcp=x:1,fails=4/3", "three of the last five"),
        ("tcp=x:1,every=1ms", "at least"),
        ("command=", "write http="),
    ] {
        let error = text.parse::<Abort>().expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn whatever_is_written_is_answered(text in "(http|tcp|command|handshakes|retransmits)?=?[ -~]{0,40}") {
        let _ = text.parse::<Abort>();
    }
}

#[test]
fn so_many_of_the_last_looks_end_a_fault() {
    let bad = || Err("bad".to_owned());
    let mut recent = Recent::new(2, 3);
    for (seen, ends) in
        [(bad(), false), (Ok(()), false), (Ok(()), false), (bad(), false), (Ok(()), false), (bad(), true)]
    {
        let why = recent.add(seen);
        assert_eq!(why.is_some(), ends, "{why:?}");
    }
}

#[test]
fn the_kernels_counters_become_shares() {
    let snmp = "Tcp: RtoAlgorithm ActiveOpens AttemptFails OutSegs RetransSegs\nTcp: 1 10 2 900 100\n";
    let netstat = "TcpExt: SyncookiesSent TCPSynRetrans\nTcpExt: 0 3\nIpExt: InNoRoutes\nIpExt: 0\n";
    let tcp = Tcp::read(snmp, netstat).unwrap();
    assert_eq!(tcp, Tcp { begun: 10, failed: 2, again: 3, sent: 1000, resent: 100 });
    assert!(tcp.retransmits(0.05, 0.04).is_err() && tcp.retransmits(0.05, 0.06).is_ok());
    // Five of thirteen.
    assert!(tcp.handshakes(0.38).is_err() && tcp.handshakes(0.39).is_ok());
    assert!(Tcp { resent: 5, sent: 5, ..Tcp::default() }.retransmits(0.0, 0.1).is_ok(), "too few");
    assert!(Tcp::read("", "").is_none());
}
