use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _, path::PathBuf};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::safety::caller::Caller;

fn intent(id: u64) -> Intent {
    Intent {
        id,
        name: id.is_multiple_of(2).then(|| format!("fault \n {id}")),
        does: "loss 10%".to_owned(),
        targets: "netns:blue".to_owned(),
        request: json!({"target": "netns:blue", "faults": {"loss": "10%"}}),
        who: Caller::Agent,
        started_ms: 1,
        duration_ms: 60_000,
        ends_boot_ns: 7,
    }
}

fn begin(next_id: u64) -> Record {
    Record::Begin { pid: 42, boot: "a-boot".to_owned(), next_id }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("chaos-journal-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Some history: numbers above 0 begin a fault, others end the one before.
fn history(steps: &[bool]) -> Vec<Record> {
    let mut records = vec![begin(1)];
    let mut id = 0;
    for begins in steps {
        if *begins {
            id += 1;
            records.push(Record::Intent(intent(id)));
            records.push(Record::Made { ids: vec![id], things: vec!["va in blue".to_owned()] });
        } else if id > 0 {
            records.push(Record::Ended { ids: vec![id], why: "deleted".to_owned() });
        }
    }
    records
}

proptest! {
    #[test]
    fn torn_anywhere_it_says_what_its_whole_lines_say(steps in proptest::collection::vec(any::<bool>(), 0..8)) {
        let lines: Vec<Vec<u8>> = history(&steps).iter().map(Record::line).collect();
        let bytes = lines.concat();
        for end in 0..=bytes.len() {
            let mut whole = 0;
            let mut length = 0;
            while whole < lines.len() && length + lines[whole].len() <= end {
                length += lines[whole].len();
                whole += 1;
            }
            let torn = Former::read(&bytes[..end]);
            let mut wanted = Former::read(&lines[..whole].concat());
            prop_assert_eq!(wanted.damaged, 0);
            wanted.damaged = usize::from(end > length);
            prop_assert_eq!(torn, wanted, "torn at {}", end);
        }
    }

    #[test]
    fn garbage_is_no_record_and_costs_only_itself(garbage in proptest::collection::vec(any::<u8>(), 0..400)) {
        let read = Former::read(&garbage);
        prop_assert!(read.open.is_empty() && read.next_id == 1);
        let mut bytes = [begin(5).line(), garbage, vec![b'\n']].concat();
        bytes.extend(Record::Intent(intent(9)).line());
        let read = Former::read(&bytes);
        prop_assert_eq!(read.open.keys().copied().collect::<Vec<_>>(), vec![9]);
        prop_assert_eq!((read.pid, read.next_id), (42, 10));
    }

    #[test]
    fn a_flipped_bit_is_seen(place in 0usize..10_000, bit in 0u8..8) {
        let mut bytes = Record::Intent(intent(3)).line();
        // The end of the line aside: without it the line is torn, with another byte it is longer.
        let place = place % (bytes.len() - 1);
        bytes[place] ^= 1 << bit;
        // A letter of the sum may change its case.
        let same = place < 8 && bytes.eq_ignore_ascii_case(&Record::Intent(intent(3)).line());
        let read = Former::read(&bytes);
        prop_assert!(same || read.open.is_empty(), "bit {} of byte {}", bit, place);
    }
}

#[test]
fn the_next_agent_knows_what_is_open_and_no_number_is_given_twice() {
    let folder = folder("next");
    let (mut journal, former, told) = Journal::open(&folder);
    assert_eq!((former.next_id, told), (1, None));
    assert_eq!(journal.begin(), None);
    assert_eq!(journal.intend(vec![intent(1), intent(2)]), None);
    assert_eq!(journal.made(vec![1, 2], vec!["va in blue".to_owned()]), None);
    assert_eq!(journal.ended(vec![1], "deleted"), None);
    drop(journal);
    let (mut journal, former, _) = Journal::open(&folder);
    assert_eq!(former.open.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([2]));
    assert_eq!((former.next_id, former.boot.as_str()), (3, journal.boot()));
    assert_eq!((former.things.len(), former.is_closed), (1, false));
    assert_eq!(journal.begin(), None);
    assert_eq!(journal.close(), None);
    drop(journal);
    let (_, former, _) = Journal::open(&folder);
    assert!(former.is_closed && former.open.is_empty() && former.next_id == 3);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_long_one_is_written_anew_and_forgets_nothing_that_is_open() {
    let folder = folder("long");
    let (mut journal, ..) = Journal::open(&folder);
    journal.begin();
    journal.intend(vec![intent(1)]);
    let long = "x".repeat(10_000);
    for id in 2..400 {
        journal.intend(vec![intent(id)]);
        journal.ended(vec![id], &long);
    }
    drop(journal);
    assert!(fs::metadata(folder.join(NAME)).unwrap().len() < LONG + 20_000);
    let (_, former, _) = Journal::open(&folder);
    assert_eq!((former.open.len(), former.next_id), (1, 400));
    fs::remove_dir_all(&folder).unwrap();
}

/// What is open is longer than a journal should be: writing it anew does not help, and ends of many must not each try.
#[test]
fn with_much_that_is_open_the_end_of_one_is_a_line() {
    let folder = folder("much");
    let (mut journal, ..) = Journal::open(&folder);
    journal.begin();
    let long = "x".repeat(10_000);
    journal.intend((1..400).map(|id| Intent { targets: long.clone(), ..intent(id) }).collect());
    let file = |folder: &PathBuf| fs::metadata(folder.join(NAME)).unwrap().ino();
    let mut files = vec![file(&folder)];
    for id in 1..200 {
        journal.ended(vec![id], "deleted");
        files.push(file(&folder));
    }
    files.dedup();
    assert!(files.len() <= 2, "written anew {} times", files.len() - 1);
    drop(journal);
    let (_, former, _) = Journal::open(&folder);
    assert_eq!(former.open.len(), 200);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn an_empty_file_and_a_folder_that_is_a_file_are_no_journal() {
    let folder = folder("empty");
    fs::write(folder.join(NAME), "").unwrap();
    let (_, former, told) = Journal::open(&folder);
    assert_eq!((former, told), (Former { next_id: 1, ..Former::default() }, None));
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    let (mut journal, _, told) = Journal::open(&folder);
    assert!(told.is_some() && journal.begin().is_some(), "it is said");
    assert!(journal.intend(vec![intent(1)]).is_none() && journal.failures() == 2, "once");
    fs::remove_file(&folder).unwrap();
}
