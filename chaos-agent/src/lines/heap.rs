//! Frames that wait, by release time, then by arrival; bounded in bytes.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use super::{frame::SLOTS, pace::Pace};

/// What a waiting frame takes besides its buffer.
const OVERHEAD_BYTES: usize = size_of::<Waiting>();

/// A frame that waits.
#[derive(Debug)]
pub(super) struct Frame {
    /// When it is to be written, in ns of `CLOCK_MONOTONIC`.
    pub(super) release_ns: u64,
    /// Which rule holds it.
    pub(super) slot: u16,
    /// Which device it came from and goes back to.
    pub(super) line: u16,
    /// Bytes of `buffer` that are the frame.
    pub(super) length: usize,
    /// The virtio header and the frame, then whatever was there before.
    pub(super) buffer: Box<[u8]>,
}

impl Frame {
    /// What is to be written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or_default()
    }

    fn cost(&self) -> usize {
        self.buffer.len() + OVERHEAD_BYTES
    }
}

/// A frame with its place in the order. Greater is later.
#[derive(Debug)]
struct Waiting {
    arrival: u64,
    frame: Frame,
}

impl Waiting {
    fn place(&self) -> (u64, u64) {
        (self.frame.release_ns, self.arrival)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// The frames that wait on all lines.
pub(super) struct Heap {
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Frames whose time has come, but whose link has no room yet: they leave in their order, one behind the other.
    lanes: BTreeMap<Pace, VecDeque<Waiting>>,
    queued: usize,
    arrivals: u64,
    bytes: usize,
    limit_bytes: usize,
    /// Frames held, by slot.
    by_slot: Box<[u32]>,
    /// Slots that hold frames, or held some when [`Heap::slots`] was asked last; each once.
    listed: Vec<u16>,
}

impl Heap {
    /// An empty heap that holds at most so many bytes, buffers and bookkeeping.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            waiting: BinaryHeap::new(),
            lanes: BTreeMap::new(),
            queued: 0,
            arrivals: 0,
            bytes: 0,
            limit_bytes,
            by_slot: vec![0; SLOTS].into_boxed_slice(),
            listed: Vec::new(),
        }
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.queued
    }

    /// Bytes they take.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first is due.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse(first)| first.frame.release_ns)
    }

    /// Whether a rule holds frames.
    pub(super) fn holds(&self, slot: u16) -> bool {
        self.by_slot.get(usize::from(slot)).is_some_and(|&held| held > 0)
    }

    /// How many frames a rule holds.
    pub(super) fn count(&self, slot: u16) -> u64 {
        self.by_slot.get(usize::from(slot)).copied().unwrap_or(0).into()
    }

    /// Adds a frame behind those of the same time; gives it back if it does not fit.
    pub(super) fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.bytes + frame.cost() > self.limit_bytes || usize::from(frame.slot) >= self.by_slot.len() {
            return Err(frame);
        }
        self.count_in(&frame);
        self.waiting.push(Reverse(Waiting { arrival: self.arrivals, frame }));
        self.arrivals += 1;
        Ok(())
    }

    /// Puts a frame that was taken by [`Self::pop_due`] behind those that wait for the same link.
    pub(super) fn queue(&mut self, pace: Pace, frame: Frame) {
        self.count_in(&frame);
        self.lanes.entry(pace).or_default().push_back(Waiting { arrival: self.arrivals, frame });
        self.arrivals += 1;
        self.queued += 1;
    }

    /// Whether frames wait for this link.
    pub(super) fn has_queue(&self, pace: Pace) -> bool {
        self.lanes.contains_key(&pace)
    }

    /// The links that frames wait for.
    pub(super) fn queues(&self) -> impl Iterator<Item = Pace> {
        self.lanes.keys().copied()
    }

    /// Takes the first that waits for this link.
    pub(super) fn pop_queue(&mut self, pace: Pace) -> Option<Frame> {
        let lane = self.lanes.get_mut(&pace)?;
        let first = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&pace);
        }
        let Waiting { frame, .. } = first?;
        self.queued -= 1;
        self.count_out(&frame);
        Some(frame)
    }

    /// Takes the first frame, if it is due.
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<Frame> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let Reverse(first) = self.waiting.pop()?;
        self.count_out(&first.frame);
        Some(first.frame)
    }

    /// The rules that hold frames.
    pub(super) fn slots(&mut self) -> &[u16] {
        let by_slot = &self.by_slot;
        self.listed.retain(|&slot| by_slot.get(usize::from(slot)).is_some_and(|&held| held > 0));
        &self.listed
    }

    /// Takes all frames that `wanted` names, in their order, due or not. Looks at every frame: for the end of
    /// a rule or a line.
    pub(super) fn take(&mut self, wanted: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let all = std::mem::take(&mut self.waiting).into_vec();
        let (mut taken, left): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|Reverse(waiting)| wanted(&waiting.frame));
        self.waiting = BinaryHeap::from(left);
        for (pace, lane) in std::mem::take(&mut self.lanes) {
            let (gone, left): (VecDeque<_>, VecDeque<_>) =
                lane.into_iter().partition(|waiting| wanted(&waiting.frame));
            self.queued -= gone.len();
            taken.extend(gone.into_iter().map(Reverse));
            if !left.is_empty() {
                self.lanes.insert(pace, left);
            }
        }
        // `Reverse` sorts the other way round.
        taken.sort_unstable_by(|a, b| b.cmp(a));
        let taken: Vec<Frame> = taken.into_iter().map(|Reverse(waiting)| waiting.frame).collect();
        for frame in &taken {
            self.count_out(frame);
        }
        taken
    }

    /// Gives memory back that an earlier crowd needed. Call it when the heap is empty.
    pub(super) fn trim(&mut self) {
        self.waiting.shrink_to(64);
    }

    fn count_in(&mut self, frame: &Frame) {
        self.bytes += frame.cost();
        let Some(held) = self.by_slot.get_mut(usize::from(frame.slot)) else { return };
        *held += 1;
        if *held == 1 && !self.listed.contains(&frame.slot) {
            self.listed.push(frame.slot);
        }
    }

    fn count_out(&mut self, frame: &Frame) {
        self.bytes -= frame.cost();
        if let Some(held) = self.by_slot.get_mut(usize::from(frame.slot)) {
            *held = held.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(release_ns: u64, slot: u16, mark: u8) -> Frame {
        Frame { release_ns, slot, line: 0, length: 1, buffer: Box::new([mark]) }
    }

    fn pop_all(heap: &mut Heap) -> Vec<(u64, u8)> {
        std::iter::from_fn(|| heap.pop_due(u64::MAX))
            .map(|frame| (frame.release_ns, frame.buffer[0]))
            .collect()
    }

    #[test]
    fn nothing_leaves_before_its_time() {
        let mut heap = Heap::new(1 << 20);
        heap.push(frame(10, 1, 0)).unwrap();
        assert!(heap.pop_due(9).is_none());
        assert_eq!(heap.next_ns(), Some(10));
        assert!(heap.pop_due(10).is_some());
        assert_eq!((heap.len(), heap.bytes(), heap.next_ns()), (0, 0, None));
    }

    #[test]
    fn what_does_not_fit_comes_back() {
        let mut heap = Heap::new(2 * (OVERHEAD_BYTES + 1));
        heap.push(frame(1, 1, 0)).unwrap();
        heap.push(frame(1, 1, 1)).unwrap();
        assert_eq!(heap.push(frame(1, 1, 2)).unwrap_err().buffer[0], 2);
        assert!(heap.pop_due(1).is_some());
        heap.push(frame(1, 1, 3)).unwrap();
    }

    #[test]
    fn slots_are_listed_while_they_hold_frames() {
        let mut heap = Heap::new(1 << 20);
        for slot in [3, 4, 3] {
            heap.push(frame(u64::from(slot), slot, 0)).unwrap();
        }
        assert_eq!(heap.slots(), [3, 4]);
        assert_eq!(heap.take(|frame| frame.slot == 3).len(), 2);
        assert!(heap.holds(4) && !heap.holds(3));
        heap.push(frame(9, 3, 0)).unwrap();
        assert_eq!(heap.slots(), [3, 4]);
        assert!(heap.pop_due(4).is_some());
        assert_eq!(heap.slots(), [3]);
    }

    proptest! {
        #[test]
        fn leaves_by_time_then_by_arrival(times in proptest::collection::vec(0_u64..6, 0..200)) {
            let mut heap = Heap::new(1 << 20);
            for (mark, &time) in times.iter().enumerate() {
                heap.push(frame(time, 0, mark as u8)).unwrap();
            }
            let mut expected: Vec<(u64, u8)> =
                times.iter().enumerate().map(|(mark, &time)| (time, mark as u8)).collect();
            expected.sort_by_key(|&(time, _)| time);
            prop_assert_eq!(pop_all(&mut heap), expected);
            prop_assert_eq!(heap.bytes(), 0);
        }

        #[test]
        fn taking_a_slot_leaves_the_others_alone(
            frames in proptest::collection::vec((0_u64..6, 0_u16..4), 0..200), wanted in 0_u16..4,
        ) {
            let mut heap = Heap::new(1 << 20);
            let mut expected = Vec::new();
            for (mark, &(time, slot)) in frames.iter().enumerate() {
                heap.push(frame(time, slot, mark as u8)).unwrap();
                expected.push((time, mark as u8, slot));
            }
            expected.sort_by_key(|&(time, ..)| time);
            let of = |mine: bool| -> Vec<(u64, u8)> {
                expected.iter().filter(|&&(.., slot)| (slot == wanted) == mine)
                    .map(|&(time, mark, _)| (time, mark)).collect()
            };
            let taken: Vec<_> = heap.take(|frame| frame.slot == wanted).into_iter()
                .map(|frame| (frame.release_ns, frame.buffer[0])).collect();
            prop_assert_eq!(taken, of(true));
            prop_assert!(!heap.holds(wanted) && !heap.slots().contains(&wanted));
            prop_assert_eq!(pop_all(&mut heap), of(false));
            prop_assert!(heap.slots().is_empty());
            prop_assert_eq!(heap.bytes(), 0);
        }

        #[test]
        fn never_holds_more_than_its_limit(sizes in proptest::collection::vec(1_usize..500, 0..100)) {
            let mut heap = Heap::new(4_000);
            for size in sizes {
                let buffer = vec![0; size].into_boxed_slice();
                let _ = heap.push(Frame { release_ns: 0, slot: 0, line: 0, length: 1, buffer });
                prop_assert!(heap.bytes() <= 4_000);
            }
        }
    }

    #[test]
    fn frames_of_a_link_wait_in_their_order_and_are_taken_with_the_others() {
        let mut heap = Heap::new(1 << 20);
        for (release_ns, slot) in [(1, 1), (2, 1), (3, 2), (4, 1)] {
            assert!(heap.push(frame(release_ns, slot, release_ns as u8)).is_ok());
        }
        let (pace, other) = ((0, 1, false), (0, 2, false));
        for _ in 0..3 {
            let frame = heap.pop_due(3).unwrap();
            heap.queue(if frame.slot == 1 { pace } else { other }, frame);
        }
        assert_eq!((heap.len(), heap.count(1), heap.next_ns()), (4, 3, Some(4)));
        assert!(heap.has_queue(pace) && heap.queues().eq([pace, other]));
        assert_eq!(heap.pop_queue(pace).unwrap().release_ns, 1);
        let taken: Vec<u64> =
            heap.take(|frame| frame.slot == 1).iter().map(|frame| frame.release_ns).collect();
        assert_eq!(taken, [2, 4], "by their time, wherever they wait");
        assert!(!heap.has_queue(pace) && heap.pop_queue(other).is_some());
        assert_eq!((heap.len(), heap.bytes(), heap.count(2)), (0, 0, 0));
    }
}
