//! Mistakes on purpose: the engine with one of its rules broken, so that tests can show that they would notice.
//!
//! A test starts the program with the name of a mistake in its environment. A release build makes none of them.

/// Declares the mistakes, so that the list of all is the declaration itself.
macro_rules! mistakes {
    ($($(#[$about:meta])* $name:ident,)*) => {
        /// A rule that is broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mistake { $($(#[$about])* $name,)* }

        impl Mistake {
            /// Every mistake.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the name by which the environment names it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

mistakes! {
    /// A write is sent first and recorded afterwards.
    SendsBeforeRecording,
    /// A creation without an answer is sent again at once.
    RepeatsCreations,
    /// What change events say is forgotten.
    ForgetsFacts,
    /// A write is sent although the store refused to record it, because the lane is another worker's by now.
    IgnoresTheFence,
    /// A recorded write is sent however long ago it was recorded.
    SendsWhenItWakes,
}

/// Variable that names the mistake to make.
pub const MISTAKE_VARIABLE: &str = "CALBRIDGE_MISTAKE";

/// Tells whether the environment wants this mistake to be made, in a debug build.
#[inline]
pub fn is_made(mistake: Mistake) -> bool {
    #[cfg(debug_assertions)]
    {
        environment::wanted() == Some(mistake)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = mistake;
        false
    }
}

#[cfg(debug_assertions)]
mod environment {
    use std::sync::LazyLock;

    use super::{MISTAKE_VARIABLE, Mistake};

    static WANTED: LazyLock<Option<Mistake>> = LazyLock::new(read);

    #[expect(
        clippy::disallowed_methods,
        reason = "for tests of debug builds only; no setting, because a release has no such thing"
    )]
    fn read() -> Option<Mistake> {
        let name = std::env::var(MISTAKE_VARIABLE).ok()?;
        let named = Mistake::ALL.iter().find(|mistake| mistake.name() == name);
        // A test that misspells one would else find an engine without it.
        assert!(named.is_some(), "`{name}` is no mistake that can be made");
        named.copied()
    }

    pub(super) fn wanted() -> Option<Mistake> {
        *WANTED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_done_wrong_unless_the_environment_names_it() {
        let names: std::collections::BTreeSet<_> = Mistake::ALL.iter().map(|mistake| mistake.name()).collect();
        assert_eq!(names.len(), Mistake::ALL.len());
        assert!(Mistake::ALL.iter().all(|mistake| !is_made(*mistake)));
    }
}
