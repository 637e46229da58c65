//! Credentials: replaced as an administrator does who rotates them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::answer::Refusal;
use crate::assembly::Clouds;

/// `POST /secrets/{cloud}`
///
/// The endpoints keep telling the first secret, as a configuration does until somebody changes it.
pub(super) async fn rotate(
    State(clouds): State<Arc<Clouds>>,
    Path(cloud): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let secret = match cloud.as_str() {
        "microsoft" => clouds.tenant.entra().rotate_secret(),
        "salesforce" => clouds.org.rotate_secret(),
        _ => return Err(Refusal::not_found(format!("`{cloud}` has no secret; use `microsoft` or `salesforce`"))),
    };
    Ok(Json(json!({ "client_secret": secret })))
}
