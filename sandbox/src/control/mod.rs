//! The control API: act as a person, turn switches, read what happened. Plain HTTP, JSON, no sign-in, loopback only.
//!
//! | call | answer |
//! |---|---|
//! | `GET /endpoints` | the endpoints file |
//! | `GET /clock` | sandbox time now and its speed |
//! | `GET /counters` | API calls by caller and kind, request units, mails, notifications, changes per record |
//! | `GET /switches`, `PATCH /switches` | all switches; a partial object changes some |
//! | `GET /oracle?settle_secs=&bridge=&attendees_one_way=&format=` | verdicts; `format=table` as text; `POST /oracle` takes known pairs |
//! | `GET /history?from=&limit=` | effective changes in order |
//! | `GET /mailboxes`, `GET /mailboxes/{m}/events`, `GET /salesforce/events` | present states |
//! | `POST /people/{address}/outlook/events`, `PATCH`, `DELETE .../{id}` | act in Outlook |
//! | `POST /people/{address}/salesforce/events`, `PATCH`, `DELETE .../{id}` | act in Salesforce |
//! | `POST /calendars?mailbox=` | load the text of a calendar export |
//! | `POST /hub/cut` | end all Event Hubs connections |
//! | `POST /salesforce/forget-change-events` | every change event so far, and its replay id, counts as expired |
//! | `POST /acts/{name}` | what befalls the clouds at once, such as `take_licence`; see `acts.rs` |
//! | `POST /people/{address}/salesforce/many`, `POST /salesforce/flow` | many changes at once, by a person or by automation |
//! | `GET /mails` | every mail that Exchange would have sent |
//! | `POST /hub/messages?partition=&form=&numbered=` | place a message of any form |
//! | `POST /salesforce/change-events` | place a change event of any form |
//! | `POST /secrets/microsoft`, `POST /secrets/salesforce` | replace the app's secret; answers the new one |

mod acts;
mod answer;
mod people;
mod placing;
mod reading;
mod secrets;
mod switches;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Uri;
use axum::routing::{get, patch, post};

use self::answer::Refusal;
use crate::assembly::Clouds;
use crate::calendar_file::MAX_FILE_BYTES;

/// Builds the control API over a running sandbox.
pub(crate) fn router(clouds: Arc<Clouds>) -> Router {
    Router::new()
        .route("/endpoints", get(reading::endpoints))
        .route("/clock", get(reading::clock))
        .route("/counters", get(reading::counters))
        .route("/switches", get(switches::read).patch(switches::change))
        .route("/oracle", get(reading::oracle).post(reading::oracle_with_pairs))
        .route("/history", get(reading::history))
        .route("/mailboxes", get(reading::mailboxes))
        .route("/mailboxes/{mailbox}/events", get(reading::mailbox_events))
        .route("/salesforce/events", get(reading::salesforce_events))
        .route("/people/{address}/outlook/events", post(people::create_in_outlook))
        .route(
            "/people/{address}/outlook/events/{id}",
            patch(people::update_in_outlook).delete(people::delete_in_outlook),
        )
        .route("/people/{address}/salesforce/events", post(people::create_in_salesforce))
        .route(
            "/people/{address}/salesforce/events/{id}",
            patch(people::update_in_salesforce).delete(people::delete_in_salesforce),
        )
        .route("/calendars", post(people::load_calendar))
        .route("/hub/cut", post(people::cut_hub))
        .route("/salesforce/forget-change-events", post(people::forget_change_events))
        .route("/acts/{name}", post(acts::act))
        .route("/mails", get(reading::mails))
        .route("/people/{address}/salesforce/many", post(people::change_many))
        .route("/salesforce/flow", post(people::flow))
        .route("/hub/messages", post(placing::on_the_hub))
        .route("/salesforce/change-events", post(placing::on_the_bus))
        .route("/secrets/{cloud}", post(secrets::rotate))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES + 1024))
        .with_state(clouds)
}

async fn unknown(uri: Uri) -> Refusal {
    Refusal::not_found(format!("`{}` is not a path of the control API; see the sandbox's README", uri.path()))
}

async fn wrong_method(method: axum::http::Method, uri: Uri) -> Refusal {
    Refusal::method_not_allowed(format!("`{}` does not take `{method}`", uri.path()))
}
