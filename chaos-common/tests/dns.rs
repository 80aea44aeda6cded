//! Questions, globs and answers against plain implementations.

use chaos_common::dns::{
    code,
    glob::{Pattern, ROUNDS, STEPS, Scan},
    may_ask,
    query::{self, ANSWER_MAX, MESSAGE_MAX, Query},
    shape,
};
use chaos_common::packet::{Class, Packet, mapped, packet_flags};
use chaos_common::verdict::Answer;
use proptest::{collection::vec, prelude::*};

/// A query for `labels` with what follows the question.
fn message(labels: &[Vec<u8>], qtype: u16, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![0x12, 0x34, 0x01, 0x20, 0, 1, 0, 0, 0, 0, 0, u8::from(!rest.is_empty())];
    for label in labels {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend(label);
    }
    out.push(0);
    out.extend(qtype.to_be_bytes());
    out.extend([0, 1]);
    out.extend(rest);
    out
}

fn labels(name: &str) -> Vec<Vec<u8>> {
    name.split('.').filter(|label| !label.is_empty()).map(|label| label.as_bytes().to_vec()).collect()
}

fn asked(name: &str, qtype: u16) -> Query {
    Query::read(&message(&labels(name), qtype, &[])).unwrap()
}

/// EDNS with a cookie, as `dig` sends it (RFC 6891, RFC 7873).
const EDNS: [u8; 23] = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];

/// The same by a table of all pairs of ends.
fn plain_glob(pattern: &[u8], name: &[u8]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for wanted in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            next[at] = match wanted {
                b'*' => reached[at] || (at > 0 && next[at - 1]),
                b'?' => at > 0 && reached[at - 1],
                other => at > 0 && reached[at - 1] && name[at - 1] == *other,
            };
        }
        reached = next;
    }
    reached[name.len()]
}

/// The name, type and end of a question, read by the book.
fn plain_question(message: &[u8]) -> Option<(Vec<u8>, u32, u32)> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    if word(2)? & 0xf800 != 0 || word(4)? != 1 || word(6)? != 0 {
        return None;
    }
    let (mut at, mut name) = (12, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 {
            return None;
        }
        name.push(message.get(at..at + length)?.to_ascii_lowercase());
        at += length;
    }
    let type_of = u32::from(word(at)?);
    word(at + 2)?;
    (at - 12 <= 255).then(|| (name.join(&b'.'), type_of, u32::try_from(at + 4).unwrap()))
}

/// Steps as the kernel takes them; none = its loop would have ended too early.
fn in_rounds(pattern: &Pattern, query: &Query) -> Option<bool> {
    let mut scan = Scan::new();
    let done = (0..STEPS * ROUNDS).any(|_| !scan.advance(pattern, query));
    done.then(|| scan.matched())
}

#[test]
fn names_are_read_in_lower_case_without_the_last_dot() {
    let query = asked("Api.Example.COM", 28);
    assert_eq!((query.text(), query.qtype, query.qclass, query.end), (&b"api.example.com"[..], 28, 1, 33));
    assert_eq!(asked("redis", 1).text(), b"redis");
    assert_eq!(asked("", 2).text(), b"", "the root");
    let longest = [vec![b'a'; 63], vec![b'b'; 63], vec![b'c'; 63], vec![b'd'; 61]];
    assert_eq!(Query::read(&message(&longest, 1, &EDNS)).unwrap().name_len, 253);
}

#[test]
fn what_is_no_plain_query_is_not_understood() {
    let good = message(&labels("a.b"), 1, &[]);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Query::read(&bytes)
    };
    assert!(changed(3, 0).is_some());
    assert!(changed(2, 0x81).is_none(), "an answer");
    assert!(changed(2, 0x29).is_none(), "an update (RFC 2136)");
    assert!(changed(5, 0).is_none() && changed(5, 2).is_none(), "one question");
    assert!(changed(7, 1).is_none(), "no answers in it");
    assert!(changed(12, 0xc0).is_none() && changed(12, 0x40).is_none(), "a pointer, a reserved label");
    for cut in 0..good.len() {
        assert!(Query::read(&good[..cut]).is_none(), "cut to {cut}");
    }
    let too_long = [vec![b'a'; 63], vec![b'b'; 63], vec![b'c'; 63], vec![b'd'; 62]];
    assert!(Query::read(&message(&too_long, 1, &[])).is_none());
}

#[test]
fn patterns_match_as_people_expect() {
    for (pattern, name, expected) in [
        ("redis", "redis", true),
        ("redis", "redis.internal", false),
        ("*", "", true),
        ("*", "a.b.c", true),
        ("*.internal", "a.internal", true),
        ("*.internal", "a.b.internal", true),
        ("*.internal", "internal", false),
        ("*.internal", "a.internal.com", false),
        ("db-*.corp", "db-7.corp", true),
        ("db-*.corp", "db-.corp", true),
        ("db-*.corp", "db-7.corpx", false),
        ("db-?.corp", "db-7.corp", true),
        ("db-?.corp", "db-77.corp", false),
        ("*a*a*", "banana", true),
        ("*-*-*.corp", "a-b.corp", false),
        ("a*a", "a", false),
    ] {
        let matched = Pattern::new(pattern.as_bytes()).unwrap().matches(&asked(name, 1));
        assert_eq!(matched, expected, "{pattern} {name}");
    }
    assert!(!Pattern::default().matches(&asked("", 1)), "a zeroed one matches nothing");
}

#[test]
fn the_hardest_pattern_is_decided_within_the_kernels_rounds() {
    let name = [vec![b'a'; 63], vec![b'a'; 63], vec![b'a'; 63], vec![b'a'; 61]];
    let mut query = Query::read(&message(&name, 1, &[])).unwrap();
    query.name[..253].fill(b'a');
    for length in [1, 40, 62, 80, 100, 123] {
        let pattern = [b"*", &vec![b'a'; length][..], b"b*"].concat();
        assert_eq!(in_rounds(&Pattern::new(&pattern).unwrap(), &query), Some(false), "{length}");
    }
}

#[test]
fn an_error_goes_back_with_the_question_and_edns() {
    let bytes = message(&labels("a.internal"), 1, &EDNS);
    let len = u32::try_from(bytes.len()).unwrap();
    let mut query = Query::read(&bytes).unwrap();
    let answer = Answer { code: code::NXDOMAIN, ..Answer::default() };
    assert_eq!(query.answer(&answer, len), len);
    let mut expected = bytes.clone();
    expected[2..4].copy_from_slice(&[0x81, 0x83]);
    assert_eq!(query.message[..bytes.len()], expected);

    let mut query = Query::read(&bytes).unwrap();
    query.answer(&Answer { code: code::TRUNCATED, ..Answer::default() }, len);
    assert_eq!(query.message[2..4], [0x83, 0x80]);
}

#[test]
fn an_address_takes_the_place_of_edns() {
    let both = Answer {
        code: code::NOERROR,
        code6: shape::ADDRESS | shape::V4 | shape::V6,
        address: mapped(u32::from_ne_bytes([10, 0, 0, 9])),
        address6: [0xfd00_0000_u32.to_be(), 0, 0, 9_u32.to_be()],
        ..Answer::default()
    };
    let four = Answer { code6: shape::ADDRESS | shape::V4, ..both };
    let bytes = |qtype| message(&labels("redis"), qtype, &EDNS);
    let answered = |qtype, answer: &Answer| {
        let bytes = bytes(qtype);
        let mut query = Query::read(&bytes).unwrap();
        let end = query.answer(answer, u32::try_from(bytes.len()).unwrap()) as usize;
        assert_eq!(query.message[end..end + 3], [0; 3]);
        query.message[..end].to_vec()
    };
    let answer = answered(1, &both);
    assert_eq!(answer[2..12], [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(answer[12..23], bytes(1)[12..23]);
    assert_eq!(answer[23..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 0, 0, 9]);
    let answer = answered(28, &both);
    assert_eq!(answer[23..35], [0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 0, 0, 16]);
    assert_eq!(answer[35..], [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    // No such address: the name exists, but has none.
    for (qtype, answer) in [(28, &four), (16, &both)] {
        let answer = answered(qtype, answer);
        assert_eq!((answer.len(), &answer[2..12]), (23, &[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0][..]));
    }
}

#[test]
fn what_is_longer_than_the_buffer_is_cut_behind_the_question() {
    let bytes = message(&labels("a"), 1, &[7; 600]);
    let mut query = Query::read(&bytes).unwrap();
    let end = query.answer(&Answer { code: code::REFUSED, ..Answer::default() }, 619);
    assert_eq!((end, &query.message[2..12]), (19, &[0x81, 0x85, 0, 1, 0, 0, 0, 0, 0, 0][..]));
}

#[test]
fn only_data_to_a_resolver_is_looked_at() {
    let data = Packet {
        class: Class::UDP,
        destination_port: 53,
        flags: packet_flags::PORTS | packet_flags::DATA,
        ..Packet::default()
    };
    assert!(may_ask(&data));
    assert!(may_ask(&Packet { class: Class::TCP, ..data }));
    assert!(!may_ask(&Packet { destination_port: 853, ..data }));
    assert!(!may_ask(&Packet { class: Class::ICMP, ..data }));
    assert!(!may_ask(&Packet { flags: packet_flags::PORTS, ..data }));
    let docker = mapped(u32::from_ne_bytes([127, 0, 0, 11]));
    assert!(may_ask(&Packet { destination_port: 40_001, destination: docker, ..data }));
}

/// Few characters, so that they meet.
fn text(wild: bool, length: usize) -> impl Strategy<Value = Vec<u8>> {
    let letters: &[u8] = if wild { b"aab.**?" } else { b"aab.-" };
    vec(proptest::sample::select(letters), 0..length)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn globs_match_as_the_plain_one(pattern in text(true, 14), name in text(false, 24)) {
        prop_assume!(!pattern.is_empty());
        let mut query = Query::default();
        query.name[..name.len()].copy_from_slice(&name);
        query.name_len = u32::try_from(name.len()).unwrap();
        let known = Pattern::new(&pattern).unwrap();
        prop_assert_eq!(known.matches(&query), plain_glob(&pattern, &name));
        prop_assert_eq!(in_rounds(&known, &query), Some(plain_glob(&pattern, &name)));
    }

    /// Never a panic, never a byte beyond the message, and the same as by the book.
    #[test]
    fn questions_are_read_as_by_the_book(
        labels in vec(vec(any::<u8>(), 1..64), 0..6),
        rest in vec(any::<u8>(), 0..40),
        cut in 0..400_usize,
        flip in (0..300_usize, any::<u8>()),
    ) {
        let mut bytes = message(&labels, 1, &rest);
        bytes.truncate(cut.max(1));
        let at = flip.0 % bytes.len();
        bytes[at] ^= if flip.0 < 150 { flip.1 } else { 0 };
        let mut query = Query::default();
        query.message = [0x5a; MESSAGE_MAX];
        query.message[..bytes.len()].copy_from_slice(&bytes);
        let mut steps = 0;
        if query.begin(u32::try_from(bytes.len()).unwrap()) {
            while query.advance() { steps += 1; }
        }
        prop_assert!(steps <= query::STEPS);
        let found = query.is_known().then(|| (query.text().to_vec(), query.qtype, query.end));
        prop_assert_eq!(found, plain_question(&bytes));
    }

    #[test]
    fn any_bytes_at_all(bytes in vec(any::<u8>(), 0..700), code in any::<u32>(), shape in 0..8_u32) {
        if let Some(mut query) = Query::read(&bytes) {
            let answer = Answer { code, code6: shape, ..Answer::default() };
            let end = query.answer(&answer, u32::try_from(bytes.len()).unwrap());
            prop_assert!(end as usize <= ANSWER_MAX);
        }
    }
}
