//! What comes after the story with `--keep-running`: files for a second process, things to try, and what happens then.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use calbridge_sandbox::history::{Effect, EffectKind};
use calbridge_sandbox::{Actor, Endpoints};
use tokio::signal::unix::{SignalKind, signal};

use crate::screen::{Screen, Tone, short};
use crate::stage::{Stage, name};

/// Files that a second process needs.
#[derive(Debug)]
struct Files {
    endpoints: PathBuf,
    config: PathBuf,
}

impl Files {
    fn write(folder: &Path, endpoints: &Endpoints, settings: &str) -> anyhow::Result<Self> {
        let files = Self { endpoints: folder.join("endpoints.json"), config: folder.join("calbridge.yaml") };
        let text = serde_json::to_string_pretty(endpoints)?;
        for (path, text) in [(&files.endpoints, text.as_str()), (&files.config, settings)] {
            // The endpoints hold secrets, if only of a sandbox: a named temporary file is readable by its owner alone.
            let mut file = tempfile::NamedTempFile::new_in(folder).context("make a file for a second process")?;
            file.write_all(text.as_bytes())?;
            file.persist(path).with_context(|| format!("write `{}`", path.display()))?;
        }
        Ok(files)
    }
}

/// Prints what to try and shows every change until ctrl-c or SIGTERM.
pub(crate) async fn keep_running(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    let endpoints = stage.sandbox.endpoints();
    let files = Files::write(&stage.folder(), endpoints, &stage.settings)?;
    let day = (stage.clock.now() + chrono::TimeDelta::days(7)).format("%Y-%m-%d");
    screen.title("Still running. Ctrl-C ends it. To try next, in a second terminal:");
    screen.gap();
    let control = &endpoints.control_url;
    let address = endpoints.mailboxes.first().map(|mailbox| mailbox.address.clone()).unwrap_or_default();
    screen.block(&format!("   DIR={}", stage.folder().display()));
    let more = format!("--sandbox-endpoints $DIR/{} --config $DIR/{}", file(&files.endpoints), file(&files.config));
    screen.gap();
    screen.block("   # act as Ada, in Outlook, then look what becomes of it");
    let time = |hour: u32| format!(r#"{{"dateTime":"{day}T{hour}:00:00","timeZone":"Europe/Berlin"}}"#);
    screen.block(&format!("   curl -s {control}/people/{address}/outlook/events \\"));
    screen.block(&format!(r#"     -d '{{"subject":"Lunch","start":{}, "#, time(12)));
    screen.block(&format!(r#"         "end":{}}}'"#, time(13)));
    screen.block("   # act as Ada, in Salesforce");
    screen.block(&format!(
        "   curl -s {control}/people/{address}/salesforce/events \\\n     -d '{{\"Subject\": \"Call\", \
         \"StartDateTime\": \"{day}T15:00:00Z\", \"DurationInMinutes\": 30}}'"
    ));
    screen.block(&format!("   curl -s {control}/salesforce/events      # what is in Salesforce"));
    screen.block(&format!("   curl -s {control}/oracle?format=table     # lost, duplicated, looped, diverged"));
    screen.block(&format!("   curl -s {control}/counters               # calls, notifications, mails"));
    screen.gap();
    screen.block("   # ask the engine's database, beside the running engine");
    screen.block(&format!("   cargo run -q -- trace Lunch \\\n     {more}"));
    screen.block(&format!("   cargo run -q -- status \\\n     {more}"));
    screen.title("What happens from now on");
    screen.gap();
    follow(stage, screen).await
}

/// Waits for Ctrl-C or SIGTERM.
pub(crate) async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        asked = tokio::signal::ctrl_c() => asked.context("listen for Ctrl-C")?,
        _asked = terminate.recv() => {}
    }
    Ok(())
}

async fn follow(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    let asked = asked_to_stop();
    tokio::pin!(asked);
    let mut changes = stage.sandbox.world().history.watch();
    let mut seen = stage.seen();
    loop {
        tokio::select! {
            asked = &mut asked => break asked?,
            _changed = changes.changed() => {}
        }
        let effects = stage.sandbox.world().history.since(seen);
        seen += effects.len();
        for effect in effects {
            tell(screen, &effect);
        }
    }
    screen.waited();
    screen.paragraph(Tone::Plain, 3, "stopping");
    Ok(())
}

fn tell(screen: &Screen, effect: &Effect) {
    let who = match &effect.actor {
        Actor::Person(address) => address.as_str(),
        Actor::App(_) => "calbridge",
        Actor::Automation(machinery) => machinery.as_str(),
    };
    let what = match effect.kind {
        EffectKind::Create => "creates",
        EffectKind::Update => "updates",
        EffectKind::Touch => "stamps",
        EffectKind::Delete => "deletes",
        EffectKind::Undelete => "restores",
    };
    let line = format!("{:<10}  {who} {what} {}", name(effect.cloud), short(&effect.record));
    if effect.actor.is_person() {
        screen.act(effect.at, &line);
    } else {
        screen.outcome(effect.at, &line);
    }
}

fn file(path: &Path) -> String {
    path.file_name().map(|name| name.display().to_string()).unwrap_or_default()
}
