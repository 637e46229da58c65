//! `config reference`, `config default`, and loading for every other command.

use super::args::{ConfigArgs, ConfigurationArgs, ConfigurationCommand};
use super::output::{Exit, Output};
use crate::config::{Config, ConfigProblem, DEFAULT_YAML, load_file, reference, sandbox};

/// Prints what was asked for.
pub(super) fn run(args: &ConfigurationArgs, output: &mut Output<'_>) -> Exit {
    match args.command {
        ConfigurationCommand::Reference => output.print(reference::markdown().trim_end()),
        ConfigurationCommand::Default => output.print(DEFAULT_YAML.trim_end()),
    }
    Exit::Done
}

/// Loads the configuration that the arguments name.
pub(super) fn load(args: &ConfigArgs) -> Result<Config, Vec<ConfigProblem>> {
    match &args.sandbox_endpoints {
        Some(endpoints) => sandbox::load_sandbox(endpoints, args.config.as_deref()),
        None => load_file(args.config.as_deref()),
    }
}
