//! The steps of `chaos_common::judge` as functions of their own: the verifier proves a global
//! function once, alone, instead of along every way that leads to it
//! (`Documentation/bpf/verifier.rst`, Linux 5.6). They share what they know through the job.

use aya_ebpf::bindings::__sk_buff;
use chaos_common::{
    fault::FaultKind,
    job::Job,
    judge::{Steps, advance, gather, prepare, wants_wire},
    packet::parse,
    protect::is_protected,
    verdict::Verdict,
    wish::{ask, begin, begins, finish, settle},
    world::World as _,
};

use crate::{
    frame::Skb,
    maps::{CHAOS_JOB, CHAOS_WISH},
    owner::{learn, track_flow},
    world::Tables,
};

/// This CPU's job. No program of ours interrupts another on one CPU, and none is called again
/// before it has decided.
#[inline(always)]
pub(crate) fn job() -> Option<&'static mut Job> {
    // SAFETY: the element is this CPU's own, and held only until the program or step ends.
    CHAOS_JOB.get_ptr_mut(0).map(|job| unsafe { &mut *job })
}

/// What the rule that is asked wants, likewise.
#[inline(always)]
fn wish() -> Option<&'static mut Verdict> {
    // SAFETY: as for the job.
    CHAOS_WISH.get_ptr_mut(0).map(|wish| unsafe { &mut *wish })
}

macro_rules! step {
    ($(#[$doc:meta])* $name:ident($skb:ident, $arg:ident) -> $job:ident, $tables:ident: $body:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name($skb: *mut __sk_buff, $arg: u32) -> u32 {
            // An argument that is not used would not be passed, which the verifier refuses.
            let ($skb, $arg) = core::hint::black_box(($skb, $arg));
            let Some($job) = job() else { return 0 };
            let $tables = Tables { skb: Skb($skb), bank: $job.bank };
            let _ = (&$tables, $arg);
            u32::from($body)
        }
    };
}

step!(
    /// Reads the headers; `l3` = there is no MAC header.
    chaos_parse(skb, l3) -> job, tables: parse(&tables.skb, tables.skb.frame(l3 != 0), &mut job.packet).is_some()
);
step!(
    /// Keeps the owner table current.
    chaos_learn(skb, unused) -> job, tables: {
        if let Some(header) = tables.header() {
            learn(&tables, header, job);
        }
        0u32
    }
);
step!(
    /// Keeps the flow table current.
    chaos_track(skb, unused) -> job, tables: {
        track_flow(job);
        0u32
    }
);
step!(
    /// [`prepare`]
    chaos_prepare(skb, unused) -> job, tables: prepare(&tables, job)
);
step!(
    /// [`gather`]
    chaos_gather(skb, unused) -> job, tables: gather(&tables, job)
);
step!(
    /// [`advance`]
    chaos_advance(skb, unused) -> job, tables: advance(&tables, job)
);
step!(
    /// [`is_protected`]
    chaos_protect(skb, unused) -> job, tables: is_protected(&tables, job)
);
step!(
    /// [`wants_wire`]
    chaos_wire(skb, unused) -> job, tables: wants_wire(&tables, job)
);
step!(
    /// [`begin`]
    chaos_begin(skb, index) -> job, tables: {
        let begins = begin(&tables, job, index);
        if begins == begins::ACTS && let Some(wish) = wish() {
            wish.clear();
        }
        begins
    }
);
step!(
    /// [`ask`]
    chaos_ask(skb, index) -> job, tables: wish().is_some_and(|wish| ask(&tables, job, wish, index))
);
step!(
    /// [`finish`]
    chaos_finish(skb, index) -> job, tables: wish().is_some_and(|wish| finish(&tables, job, wish, index))
);
step!(
    /// [`chaos_common::wish::judge_rule`], whose steps are proved one by one.
    chaos_judge(skb, index) -> job, tables: judge_rule(&tables, index)
);
step!(
    /// [`settle`]
    chaos_settle(skb, unused) -> job, tables: {
        settle(&tables, job);
        0u32
    }
);

#[inline(always)]
fn judge_rule(tables: &Tables, index: u32) -> bool {
    let skb = tables.skb.0;
    match chaos_begin(skb, index) {
        begins::NOTHING => return false,
        begins::FOLLOWS => return true,
        _ => {}
    }
    for _ in FaultKind::ALL {
        if chaos_ask(skb, index) == 0 {
            break;
        }
    }
    chaos_finish(skb, index) != 0
}

/// Calls each step as a function of its own.
pub(crate) struct Proved(pub(crate) Skb);

impl Proved {
    #[inline(always)]
    pub(crate) fn parse(&self, l3: bool) -> bool {
        chaos_parse(self.0.0, u32::from(l3)) != 0
    }

    #[inline(always)]
    pub(crate) fn learn(&self) {
        chaos_learn(self.0.0, 0);
    }

    #[inline(always)]
    pub(crate) fn track(&self) {
        chaos_track(self.0.0, 0);
    }
}

impl Steps for Proved {
    #[inline(always)]
    fn prepare(&mut self) -> bool {
        chaos_prepare(self.0.0, 0) != 0
    }

    #[inline(always)]
    fn gather(&mut self) -> bool {
        chaos_gather(self.0.0, 0) != 0
    }

    #[inline(always)]
    fn advance(&mut self) -> bool {
        chaos_advance(self.0.0, 0) != 0
    }

    #[inline(always)]
    fn matches(&self) -> u32 {
        job().map_or(0, |job| job.matches.count)
    }

    #[inline(always)]
    fn is_protected(&self) -> bool {
        chaos_protect(self.0.0, 0) != 0
    }

    #[inline(always)]
    fn wants_wire(&self) -> bool {
        chaos_wire(self.0.0, 0) != 0
    }

    #[inline(always)]
    fn judge_match(&mut self, index: u32) -> bool {
        chaos_judge(self.0.0, index) != 0
    }

    #[inline(always)]
    fn settle(&mut self) {
        chaos_settle(self.0.0, 0);
    }
}
