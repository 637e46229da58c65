//! Faults and unconfirmed behaviours: named switches, and what strikes at random in the profile `hostile`.

pub(crate) mod hostile;
mod switches;

use std::sync::RwLock;

pub(crate) use self::hostile::Strike;
pub use self::switches::Switches;

/// The switches as shared state.
#[derive(Debug, Default)]
pub struct Faults {
    switches: RwLock<Switches>,
}

impl Faults {
    /// Returns a copy of all switches.
    pub fn read(&self) -> Switches {
        self.switches.read().expect("no switch update panics while holding the lock").clone()
    }

    /// Changes switches.
    pub fn change(&self, change: impl FnOnce(&mut Switches)) {
        change(&mut self.switches.write().expect("no switch update panics while holding the lock"));
    }

    /// Takes one from the counter of a strike; tells whether there was one to take.
    pub(crate) fn take(&self, strike: Strike) -> bool {
        let mut switches = self.switches.write().expect("no switch update panics while holding the lock");
        let left = strike.counter(&mut switches);
        let taken = *left > 0;
        *left = left.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_ends_faults_and_leaves_features_alone() {
        let mut switches = Switches {
            outlook_if_match: false,
            outlook_throttle_next: 3,
            salesforce_deliveries_exhausted: true,
            ..Switches::default()
        };
        switches.calm();
        assert_eq!(switches, Switches { outlook_if_match: false, hostile: false, ..Switches::default() });
    }

    #[test]
    fn a_counter_is_used_up_by_as_many_strikes() {
        let faults = Faults::default();
        faults.change(|switches| switches.hub_drop_next = 2);
        assert_eq!([(); 3].map(|()| faults.take(Strike::HubDrop)), [true, true, false]);
    }

    #[test]
    fn every_switch_is_in_the_readme() {
        let readme = include_str!("../../README.md");
        let switches = serde_json::to_value(Switches::default()).unwrap();
        for name in switches.as_object().unwrap().keys() {
            assert!(readme.contains(&format!("| `{name}` |")), "`{name}` has a row in sandbox/README.md");
        }
    }
}
