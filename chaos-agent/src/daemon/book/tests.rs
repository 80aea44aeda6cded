use serde_json::json;

use super::*;
use crate::api;

const CAPACITY: u32 = 16;

fn new(body: &Value) -> NewFault {
    api::understood(body).unwrap()
}

fn book() -> Book {
    Book { capacity: CAPACITY, ..Book::default() }
}

/// Holds a fault; its number.
fn hold(book: &mut Book, new: NewFault) -> u64 {
    let mut free = book.free(new.set.rules.len()).unwrap().into_iter();
    let fault = book.draft(new, Duration::from_secs(1), &mut free);
    let id = fault.id;
    book.add(fault);
    id
}

fn loss(share: &str) -> NewFault {
    new(&json!({"target": "netns:nowhere-at-all", "faults": {"loss": share}, "duration": "1m"}))
}

#[test]
fn of_those_that_ended_so_many_and_so_many_bytes_are_remembered() {
    let mut book = book();
    for _ in 0..REMEMBERED + 7 {
        let id = hold(&mut book, loss("1%"));
        book.end(id, "deleted", RuleStats::default());
    }
    assert_eq!(book.all().count(), REMEMBERED);
    let mut long = loss("1%");
    long.body["abort"] = json!("x".repeat(REMEMBERED_BYTES / 4));
    for _ in 0..10 {
        let id = hold(&mut book, long.clone());
        book.end(id, "deleted", RuleStats::default());
        assert!(book.find(&id.to_string()).is_some(), "the last one is always known");
    }
    let bytes: usize = book.all().map(Fault::body_length).sum();
    assert!(bytes <= REMEMBERED_BYTES && book.ended_bytes == bytes, "{bytes} {}", book.ended_bytes);
    long.body["abort"] = json!("x".repeat(2 * REMEMBERED_BYTES));
    let id = hold(&mut book, long);
    book.end(id, "deleted", RuleStats::default());
    assert!(book.find(&id.to_string()).is_some() && book.all().count() == 1);
}

#[test]
fn the_alarm_of_other_rules_is_none_of_these() {
    let mut book = book();
    let id = hold(&mut book, loss("1%"));
    let raised = Alarm::Raised(json!(null), "wrong direction".to_owned());
    book.active_mut(id).unwrap().alarm = raised.clone();
    let now = Duration::from_secs(9);
    let same = book.amend(id, loss("1%"), now, true).unwrap();
    assert_eq!(same.alarm, raised, "only its time is another");
    let other = book.amend(id, loss("2%"), now, false).unwrap();
    assert_eq!((&other.alarm, other.acting_for(now)), (&Alarm::Quiet, Duration::ZERO));
    book.active_mut(id).unwrap().alarm = Alarm::Matched;
    assert_eq!(book.amend(id, loss("3%"), now, false).unwrap().alarm, Alarm::Matched);
}

#[test]
fn what_is_written_down_ends_when_the_fault_does() {
    let mut book = book();
    let id = hold(&mut book, loss("1%"));
    let late = super::super::now() + Duration::from_secs(500);
    let changed = book.amend(id, loss("1%"), late, true).unwrap();
    let until = changed.written().until.duration_since(SystemTime::now()).unwrap();
    assert!((555..=560).contains(&until.as_secs()), "{until:?}");
}
