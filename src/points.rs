//! Places at which the program may die: before and after everything that others can see.
//!
//! The tests of crashes visit every one of them: they start the program with a point and a file named in its environment,
//! and once that file exists, the first pass of that point ends the process as `kill -9` does, or makes it stand still until
//! it is told to go on. In a release build a pass is nothing at all.

/// Declares the points, so that the list of all is the declaration itself.
macro_rules! points {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// A place at which the program may die.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Point { $($(#[$about])* $name,)* }

        impl Point {
            /// Every point, in the order of a change's way through the program.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the name by which the environment names it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

points! {
    /// Notifications have come and are not stored.
    BeforeAccept,
    /// They are stored, and nobody was told.
    AfterAccept,
    /// The memory of notifications seen knows them, and their listener does not.
    BeforeReceipt,
    /// Their listener was told.
    AfterReceipt,
    /// The reader of the hub took the receipt.
    HubReceipt,
    /// The reader of change events took the receipt and has not asked for more.
    BeforeCredit,
    /// It has asked for more.
    AfterCredit,
    /// A lane is due and not claimed.
    BeforeClaim,
    /// It is claimed.
    AfterClaim,
    /// Records are about to be read.
    BeforeRead,
    /// They were read.
    AfterRead,
    /// Lanes are about to be brought together.
    BeforeJoin,
    /// They were, or there was nothing to bring together.
    AfterJoin,
    /// A search for records is about to be sent.
    BeforeSearch,
    /// It was answered.
    AfterSearch,
    /// A plan was made and is not recorded.
    BeforeRecord,
    /// It is recorded, with the writes that it intends.
    AfterRecord,
    /// A write is about to be sent.
    BeforeSend,
    /// It was answered.
    AfterAnswer,
    /// Its answer was judged and the judgement is not recorded.
    BeforeSettle,
    /// It is recorded.
    AfterSettle,
}

/// Variable that names the point at which to die.
pub const POINT_VARIABLE: &str = "CALBRIDGE_CRASH_POINT";
/// Variable that names the file without which nothing happens.
pub const ARMED_VARIABLE: &str = "CALBRIDGE_CRASH_WHEN";
/// Variable that names the signal which the process then sends to itself: `KILL`, also if it is not set, or `STOP`.
pub const SIGNAL_VARIABLE: &str = "CALBRIDGE_CRASH_SIGNAL";

/// Passes a point: dies or stops here if the environment wants it, in a debug build.
#[inline]
pub fn pass(point: Point) {
    #[cfg(debug_assertions)]
    death::strike(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
mod death {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::{ARMED_VARIABLE, POINT_VARIABLE, Point, SIGNAL_VARIABLE};

    struct Wanted {
        point: Point,
        armed: PathBuf,
        stops: bool,
    }

    static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(wanted);
    /// Whether it stopped since the file came: what it does at once in several threads is one stop.
    static STOPPED: AtomicBool = AtomicBool::new(false);

    #[expect(
        clippy::disallowed_methods,
        reason = "for tests of debug builds only; no setting, because a release has no such thing"
    )]
    fn wanted() -> Option<Wanted> {
        let name = std::env::var(POINT_VARIABLE).ok()?;
        let point = *Point::ALL.iter().find(|point| point.name() == name)?;
        let stops = std::env::var(SIGNAL_VARIABLE).is_ok_and(|signal| signal == "STOP");
        Some(Wanted { point, armed: std::env::var_os(ARMED_VARIABLE)?.into(), stops })
    }

    pub(super) fn strike(point: Point) {
        let Some(wanted) = WANTED.as_ref().filter(|wanted| wanted.point == point) else { return };
        if !wanted.armed.exists() {
            STOPPED.store(false, Ordering::SeqCst);
            return;
        }
        if wanted.stops {
            if !STOPPED.swap(true, Ordering::SeqCst) {
                send("-STOP");
            }
            return;
        }
        send("-KILL");
        loop {
            std::thread::park();
        }
    }

    /// Sends this process a signal; it comes before this thread goes on.
    fn send(signal: &str) {
        let own = std::process::id().to_string();
        let sent = Command::new("kill").args([signal, &own]).stdin(Stdio::null()).status();
        // Without one the test must not take a survivor for dead.
        assert!(sent.is_ok_and(|status| status.success()), "cannot send a signal to myself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_names_of_their_own_and_passing_one_unarmed_does_nothing() {
        let names: std::collections::BTreeSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), Point::ALL.len());
        for point in Point::ALL {
            pass(*point);
        }
    }
}
