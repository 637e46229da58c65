//! Private content never leaves its side, nor does it get into anything that the engine keeps.

use std::path::Path;

use calbridge_sandbox::Options;
use calbridge_sandbox::history::Cloud;
use serde_json::{Value, json};

use crate::support::Rehearsal;
use crate::support::look::gives;
use crate::support::meetings::{fields, id_of, in_outlook, in_salesforce};

/// Words that stand nowhere but in private content.
const SECRETS: [&str; 3] = ["xyloquartz", "brimvandle", "ostrefungo"];

/// A private Outlook event whose subject, body and place are secrets.
fn secret(sensitivity: &str) -> Value {
    let mut event = in_outlook(&format!("About {}", SECRETS[0]));
    event["sensitivity"] = json!(sensitivity);
    event["body"]["content"] = json!(format!("it says {}", SECRETS[1]));
    event["location"]["displayName"] = json!(format!("at {}", SECRETS[2]));
    event
}

/// Stops the engine and looks for the secrets in everything that it wrote: Salesforce, database, traces.
async fn assert_nowhere(rehearsal: &mut Rehearsal, ids: &[&str]) {
    let other_side = |effect: &&calbridge_sandbox::history::Effect| effect.cloud == Cloud::Salesforce;
    let history = rehearsal.sandbox.world().history.since(0);
    let told = serde_json::to_string(&history.iter().filter(other_side).collect::<Vec<_>>()).unwrap();
    assert_free_of_secrets("the history of Salesforce", told.as_bytes());
    let rows = serde_json::to_string(&rehearsal.sandbox.org().records()).unwrap();
    assert_free_of_secrets("the rows of Salesforce", rows.as_bytes());
    for text in ids.iter().chain(&SECRETS) {
        let stories = rehearsal.trace(text).await;
        assert_free_of_secrets("a trace", serde_json::to_string(&stories).unwrap().as_bytes());
    }
    for word in SECRETS {
        assert!(rehearsal.trace(word).await.is_empty(), "a private subject cannot be searched for");
    }
    rehearsal.stop_engine().await;
    assert_files_free_of_secrets(rehearsal.folder());
}

fn assert_files_free_of_secrets(folder: &Path) {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // The last reader of a database removes its log when it goes.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => panic!("{error}: {}", path.display()),
        };
        assert_free_of_secrets(&path.display().to_string(), &bytes);
        files += 1;
    }
    assert!(files > 0, "there is a database");
}

fn assert_free_of_secrets(what: &str, bytes: &[u8]) {
    for secret in SECRETS {
        let utf16: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
        for form in [secret.as_bytes(), &utf16] {
            assert!(!bytes.windows(form.len()).any(|window| window == form), "{what} holds `{secret}`");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_and_confidential_meetings_stay_where_they_are() {
    let mut rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    let private = id_of(&person.create_in_outlook(&secret("private")).unwrap());
    let confidential = id_of(&person.create_in_outlook(&secret("confidential")).unwrap());
    rehearsal.rest().await;
    person.update_in_outlook(&private, &json!({"subject": format!("More {}", SECRETS[1])})).unwrap();
    rehearsal.rest().await;
    assert!(rehearsal.app_effects().is_empty());
    for id in [&private, &confidential] {
        let story = rehearsal.story(id).await;
        assert!(gives(&story, "private"), "{story:#}");
    }
    assert_nowhere(&mut rehearsal, &[&private, &confidential]).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meeting_that_becomes_private_loses_its_salesforce_copy_and_tells_nothing() {
    let mut rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&in_outlook("Open")).unwrap());
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    let id = id_of(&rehearsal.salesforce()[0]);
    person.update_in_outlook(&event, &secret("private")).unwrap();
    rehearsal.until("the copy is gone", |r| r.salesforce().is_empty()).await;
    rehearsal.rest().await;
    person.update_in_outlook(&event, &json!({"subject": format!("More {}", SECRETS[0])})).unwrap();
    rehearsal.rest().await;
    assert_eq!(rehearsal.outlook(0).len(), 1, "the meeting itself stays");
    assert_eq!(rehearsal.written(), (0, 2), "a creation and a deletion");
    let story = rehearsal.story(&event).await;
    assert!(gives(&story, "became_private"), "{story:#}");
    assert_nowhere(&mut rehearsal, &[&event, &id]).await;
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_event_of_salesforce_never_reaches_outlook() {
    let mut rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    let mut private = in_salesforce(&format!("About {}", SECRETS[0]));
    private.extend(fields(json!({"IsPrivate": true, "Description": SECRETS[1], "Location": SECRETS[2]})));
    let id = person.create_in_salesforce(private).unwrap();
    rehearsal.rest().await;
    person.update_in_salesforce(&id, &fields(json!({"Subject": format!("More {}", SECRETS[1])}))).unwrap();
    rehearsal.rest().await;
    assert!(rehearsal.app_effects().is_empty());
    assert!(rehearsal.outlook(0).is_empty());
    let story = rehearsal.story(&id).await;
    assert!(gives(&story, "private"), "{story:#}");
    assert_free_of_secrets("the trace", story.to_string().as_bytes());
    rehearsal.stop_engine().await;
    assert_files_free_of_secrets(rehearsal.folder());
    rehearsal.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_meeting_that_is_opened_crosses_from_then_on() {
    let rehearsal = Rehearsal::start(Options { speed: 10.0, ..Options::default() }, "").await;
    let person = rehearsal.person(0);
    let event = id_of(&person.create_in_outlook(&secret("private")).unwrap());
    rehearsal.rest().await;
    let mut opened = in_outlook("Opened");
    opened["sensitivity"] = json!("normal");
    person.update_in_outlook(&event, &opened).unwrap();
    rehearsal.until("it is in Salesforce", |r| r.salesforce().len() == 1).await;
    rehearsal.rest().await;
    assert_eq!(rehearsal.salesforce()[0]["Subject"], "Opened");
    assert_eq!(rehearsal.written(), (0, 1));
    rehearsal.assert_clean();
    rehearsal.end().await;
}
