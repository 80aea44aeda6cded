//! Frames that were sent into a line and never came out of its queue: the device drops what finds it full, and
//! tells nobody.
//!
//! The classifier counts what it sends, the thread what it has. What is in neither the queue nor the heap, for
//! longer than a packet can be on its way between the two, is lost.

use super::{heap::Heap, thread::RuleWatch};

/// So often the queues were found empty, and all the time at least one frame was missing: 0.5 s. A frame is on
/// its way into the queue for microseconds; that one is at every look is out of the question.
const LOOKS: u32 = 32;

/// What is missing, rule by rule.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Slots whose frames ever came, with the least that was missing since the count of looks began.
    missing: Vec<(u16, u64)>,
    looks: u32,
}

impl Ledger {
    /// A frame of this slot came.
    pub(super) fn note(&mut self, slot: u16) {
        if !self.missing.iter().any(|(known, _)| *known == slot) {
            self.missing.push((slot, 0));
        }
    }

    /// Call it when the queues are empty. Tells the rules what will never come, and says how much that was.
    pub(super) fn look(&mut self, watch: &dyn RuleWatch, heap: &Heap) -> u64 {
        for (slot, least) in &mut self.missing {
            let missing = watch.held(u32::from(*slot)).saturating_sub(heap.count(*slot));
            *least = missing.min(*least);
        }
        self.looks += 1;
        if self.looks < LOOKS {
            return 0;
        }
        self.looks = 0;
        let mut lost = 0;
        for (slot, least) in &mut self.missing {
            // The first count of a slot, and every other, begins with what nothing can exceed.
            let gone = std::mem::replace(least, u64::MAX);
            if gone > 0 && gone < u64::MAX {
                watch.released(u32::from(*slot), gone);
                lost += gone;
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// One rule; so much was sent for it and not told to have left.
    struct One(Cell<u64>);

    impl RuleWatch for One {
        fn is_over(&self, _: u32) -> bool {
            false
        }

        fn released(&self, _: u32, frames: u64) {
            self.0.set(self.0.get() - frames);
        }

        fn heartbeat(&self, _: u64) {}

        fn held(&self, _: u32) -> u64 {
            self.0.get()
        }
    }

    fn look_often(ledger: &mut Ledger, one: &One, mut between: impl FnMut(u32)) -> u64 {
        let heap = Heap::new(1 << 20);
        (0..2 * LOOKS)
            .map(|turn| {
                between(turn);
                ledger.look(one, &heap)
            })
            .sum()
    }

    #[test]
    fn what_never_comes_is_told_once() {
        let one = One(Cell::new(7));
        let mut ledger = Ledger::default();
        ledger.note(3);
        assert_eq!(look_often(&mut ledger, &one, |_| ()), 7);
        assert_eq!(look_often(&mut ledger, &one, |_| ()), 0);
        assert_eq!(one.0.get(), 0);
    }

    #[test]
    fn what_is_on_its_way_is_not_lost() {
        let one = One(Cell::new(0));
        let mut ledger = Ledger::default();
        ledger.note(3);
        let lost = look_often(&mut ledger, &one, |turn| one.0.set(u64::from(turn % 9 != 0) * 5));
        assert_eq!((lost, look_often(&mut Ledger::default(), &One(Cell::new(9)), |_| ())), (0, 0));
    }
}
