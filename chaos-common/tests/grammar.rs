//! What the kinds about time and loss read, refuse and say.

use proptest::prelude::*;

use crate::bench::{described, parsed};

#[test]
fn what_is_read_is_told_in_plain_words() {
    for (name, value, words) in [
        ("delay", "100ms", "delay 100ms"),
        ("delay", "100ms±20ms", "delay 100ms±20ms (uniform)"),
        ("delay", "100ms+-20ms", "delay 100ms±20ms (uniform)"),
        ("delay", "1.5s ± 1us, distribution=pareto", "delay 1.5s±1us (pareto)"),
        (
            "delay",
            "100ms±20ms,distribution=normal,correlation=25%,mode=data-only",
            "delay 100ms±20ms (normal), correlation 25%, data only",
        ),
        ("delay", "0", "delay 0s"),
        ("delay", "10m,mode=per-packet", "delay 600s"),
        ("rtt", "100ms", "round trip 100ms, half each way"),
        (
            "rtt",
            "100ms±20ms,distribution=paretonormal",
            "round trip 100ms±20ms (paretonormal), half each way",
        ),
        ("rate", "10Mbit/s", "rate 10Mbit/s, queue 250ms (312500B)"),
        ("rate", "1KB/s", "rate 8kbit/s, queue 32.768s (32KiB)"),
        (
            "rate",
            "1Mbit,burst=16KB,queue=100ms,per=connection",
            "rate 1Mbit/s per connection, burst 16KB, queue 100ms (12500B)",
        ),
        ("rate", "1Mbit,burst=8ms,per=rule,queue=125KB", "rate 1Mbit/s, burst 1KB, queue 1s (125KB)"),
        ("reorder", "25%", "reorder 25%"),
        ("reorder", "25%,gap=5,correlation=50%", "reorder 25%, gap 5, correlation 50%"),
        ("duplicate", "5% , correlation=25%", "duplicate 5%, correlation 25%"),
        ("corrupt", "5%", "corrupt 5%"),
        ("corrupt", "5%,bytes=100-,silent", "corrupt 5%, in bytes 100-, unseen by checksums"),
        (
            "corrupt",
            "5%,bits=3,bytes=0-99,correlation=25%",
            "corrupt 5%, 3 bits each, in bytes 0-99, correlation 25%",
        ),
        ("loss", "10%", "loss 10%"),
        ("loss", "every=7", "loss of every 7. packet"),
        ("loss", "1%,every=7", "loss 1% and of every 7. packet"),
        ("loss", "10%,correlation=25%,ecn", "loss 10%, correlation 25%, marked instead where ECN allows it"),
        (
            "loss",
            "p=1%,r=25%",
            "loss in bursts: good to bad 1%, back 25%, lost in bad 100%, in good 0% (3.8462% of all)",
        ),
        (
            "loss",
            "p=10%,r=40%,h=50%,k=95%",
            "loss in bursts: good to bad 10%, back 40%, lost in bad 50%, in good 5% (14% of all)",
        ),
    ] {
        assert_eq!(described(&[(name, value)]), words, "--{name} {value}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    for (name, value, says) in [
        ("delay", "", "is not a duration"),
        ("delay", "100", "has no unit: write 100ms"),
        ("delay", "100ms±", "is not a duration"),
        ("delay", "100ms±20", "has no unit"),
        ("delay", "11m", "at most 10m"),
        ("delay", "10m±1ms", "at most 10m"),
        ("delay", "100ms,distribution=normal", "such as 100ms±20ms"),
        ("delay", "100ms,correlation=25%", "such as 100ms±20ms"),
        ("delay", "100ms±20ms,distribution=gauss", "uniform, normal, pareto, paretonormal, or a file"),
        ("delay", "100ms±20ms,distribution=./no.dist", "`./no.dist`: No such file"),
        ("delay", "100ms±20ms,correlation=2", "0% to 100%"),
        ("delay", "100ms,mode=fast", "per-packet and data-only"),
        ("delay", "100ms,20ms", "distribution=, correlation= and mode="),
        ("rtt", "100ms,speed=1", "distribution=, correlation= and mode="),
        ("rate", "10", "bits or bytes"),
        ("rate", "1bit/s", "from 1kbit/s to 100Gbit/s"),
        ("rate", "1Tbit/s", "from 1kbit/s to 100Gbit/s"),
        ("rate", "1Mbit,burst=big", "takes bytes (64KB) or a time (100ms)"),
        ("rate", "1Mbit,queue=2M", "at most 10m"),
        ("rate", "1Mbit,queue=1GB", "at most 10m"),
        ("rate", "1Mbit,per=packet", "per=rule (the default) or per=connection"),
        ("rate", "1Mbit,limit=3", "burst=, queue= and per="),
        ("reorder", "25", "0% to 100%"),
        ("reorder", "25%,gap=0", "from 1"),
        ("reorder", "25%,50%", "gap= and correlation="),
        ("loss", "ten", "every=7, or bursts, such as p=1%,r=25%"),
        ("loss", "every=0", "from 1"),
        ("loss", "10%,p=1%", "not both"),
        ("loss", "r=25%", "write p= before it"),
        ("loss", "h=25%,p=1%", "write p= before it"),
        ("loss", "p=1%,correlation=25%", "bursts have p= and r="),
        ("loss", "correlation=25%", "10%,correlation=25%"),
        ("loss", "ecn", "10%,ecn"),
        ("loss", "10%,q=3%", "`q=`"),
    ] {
        let error = parsed(&[(name, value)]).expect_err(value);
        assert!(error.contains(says), "--{name} {value}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_fault_or_refused(
        kind in 0..5usize,
        text in "[0-9.]{0,4}(ms|s|%|Mbit)?(±|\\+-)?[0-9a-z%]{0,4}(,[a-z1-]{0,8}=?[0-9a-z%.]{0,6}){0,3}",
    ) {
        let name = ["delay", "rtt", "rate", "reorder", "loss"][kind];
        if let Ok(faults) = parsed(&[(name, &text)]) {
            prop_assert!(!faults.is_off(), "{}", text);
            prop_assert!(!described(&[(name, &text)]).is_empty());
        }
    }

    /// Jitter may exceed its base: no packet is early.
    #[test]
    fn delays_are_never_negative(base in 0..1_000_000u64, jitter in 1..1_000_000u64, seed: u64) {
        for name in ["uniform", "normal"] {
            let value = format!("{base}ns±{jitter}ns,distribution={name}");
            let mut bench = crate::bench::Bench::new(&[("delay", &value)], seed | 1);
            for _ in 0..20 {
                prop_assert!(bench.step().delay_ns <= base + 4 * jitter);
            }
        }
    }
}
