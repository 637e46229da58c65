//! `$batch`: several calls in one request (<https://learn.microsoft.com/en-us/graph/json-batching>).

use std::collections::BTreeMap;

use axum::http::Method;
use futures::future::join_all;
use serde_json::{Map, Value, json};

use super::path::Route;
use super::prefer::Prefer;
use super::{Answer, Call, Front, Ids, parse_query};
use crate::graph::GraphError;
use crate::oauth::entra::Claims;

/// Calls that one batch may hold.
const MOST: usize = 20;
/// Items of one batch that run at once for the same mailbox; each takes a seat of the mailbox while it runs
/// (<https://learn.microsoft.com/en-us/graph/throttling#throttling-and-batching>).
const TOGETHER: usize = 4;

impl Front {
    /// Answers a batch: its items in their order, an item whose dependency failed with 424.
    pub(super) async fn batch(&self, outer: &Call, claims: &Claims, ids: &Ids) -> Result<Answer, GraphError> {
        let requests = outer.body()?.get("requests").and_then(Value::as_array);
        let requests = requests.ok_or_else(|| GraphError::bad_request("Invalid batch payload format."))?;
        if requests.is_empty() || requests.len() > MOST {
            let message = "The maximum number of requests allowed in a batch is 20, the minimum is 1.";
            return Err(GraphError::bad_request(message));
        }
        let items = read(requests)?;
        let mut statuses: BTreeMap<String, u16> = BTreeMap::new();
        let mut responses = Vec::with_capacity(items.len());
        let mut cut = false;
        let mut rest = items.as_slice();
        while !rest.is_empty() {
            let (together, after) = rest.split_at(at_once(rest));
            rest = after;
            let answers = join_all(together.iter().map(|item| async {
                let failed = item.depends_on.iter().any(|id| statuses.get(id).is_some_and(|status| *status >= 400));
                if failed {
                    self.tenant.world.meters.units(&outer.caller, 1);
                    self.refuse(&GraphError::new(424, "FailedDependency", "Failed dependency"), ids)
                } else {
                    self.item(item, outer, claims, ids).await
                }
            }))
            .await;
            for (item, answer) in together.iter().zip(answers) {
                cut |= answer.cut;
                statuses.insert(item.key.clone(), answer.status);
                responses.push(response(&item.id, answer));
            }
        }
        let mut answer = Answer::json(200, json!({"responses": responses}));
        answer.cut = cut;
        Ok(answer)
    }

    async fn item(&self, item: &Item<'_>, outer: &Call, claims: &Claims, ids: &Ids) -> Answer {
        let url = item.rooted();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let prepared = Route::find(&item.method, path).and_then(|route| {
            if matches!(route, Route::Batch) {
                return Err(GraphError::bad_request("A batch cannot contain a batch."));
            }
            Ok((route, Prefer::parse(item.header("prefer").into_iter())?))
        });
        let (route, prefer) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return self.refuse(&error, ids),
        };
        let call = Call {
            method: item.method.clone(),
            path: path.to_owned(),
            query: parse_query(query),
            prefer,
            if_match: item.header("if-match").map(str::to_owned),
            body: item.body.cloned(),
            base: outer.base.clone(),
            caller: outer.caller.clone(),
        };
        self.answer(route, call, claims, ids).await
    }
}

/// Returns how many of the next items run at once: those that wait for none of them, at most four of one mailbox.
fn at_once(items: &[Item<'_>]) -> usize {
    let mut mailboxes: BTreeMap<String, usize> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let waits = items[..index].iter().any(|earlier| item.depends_on.contains(&earlier.key));
        let running = mailboxes.entry(item.mailbox()).or_default();
        *running += 1;
        if waits || *running > TOGETHER {
            return index;
        }
    }
    items.len()
}

struct Item<'a> {
    id: String,
    /// The id without its case, by which dependencies are found.
    key: String,
    method: Method,
    url: String,
    headers: Option<&'a Map<String, Value>>,
    body: Option<&'a Value>,
    depends_on: Vec<String>,
}

impl Item<'_> {
    /// Returns the name of the mailbox that the item is about; empty for other items.
    fn mailbox(&self) -> String {
        let url = self.rooted();
        let route = Route::find(&self.method, url.split_once('?').map_or(url.as_str(), |(path, _)| path));
        route.ok().and_then(|route| route.mailbox().map(str::to_lowercase)).unwrap_or_default()
    }

    /// Returns the address with its first slash.
    ///
    /// It is relative to the version of the batch itself: one with host or version is refused like any unknown path, as
    /// <https://github.com/microsoftgraph/msgraph-sdk-python/issues/1015> reports.
    fn rooted(&self) -> String {
        format!("/{}", self.url.trim_start_matches('/'))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers?.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.as_str())
    }
}

fn read(requests: &[Value]) -> Result<Vec<Item<'_>>, GraphError> {
    let mut items: Vec<Item<'_>> = Vec::with_capacity(requests.len());
    for request in requests {
        let text = |name: &str| request.get(name).and_then(Value::as_str);
        let id = text("id").ok_or_else(|| GraphError::bad_request("A request of the batch has no id."))?;
        let key = id.to_lowercase();
        if items.iter().any(|known| known.key == key) {
            return Err(GraphError::bad_request(format!("Request id : {id} is not unique within the batch.")));
        }
        let method = text("method").and_then(|method| method.to_uppercase().parse().ok());
        let (Some(method), Some(url)) = (method, text("url")) else {
            return Err(GraphError::bad_request(format!("Request id : {id} has no method or url.")));
        };
        let mut depends_on = Vec::new();
        for dependency in request.get("dependsOn").and_then(Value::as_array).into_iter().flatten() {
            let dependency = dependency.as_str().unwrap_or_default().to_lowercase();
            if !items.iter().any(|known| known.key == dependency) {
                let message = format!("Request id : {id} depends on a request that does not come before it.");
                return Err(GraphError::bad_request(message));
            }
            depends_on.push(dependency);
        }
        let body = request.get("body").filter(|body| !body.is_null());
        let headers = request.get("headers").and_then(Value::as_object);
        let url = format!("/{}", url.trim_start_matches('/'));
        let item = Item { id: id.to_owned(), key, method, url, headers, body, depends_on };
        if item.body.is_some() && item.header("content-type").is_none() {
            let message = format!("Write request id : {id} does not contain Content-Type header or body.");
            return Err(GraphError::bad_request(message));
        }
        items.push(item);
    }
    Ok(items)
}

fn response(id: &str, answer: Answer) -> Value {
    let mut headers = Map::new();
    if answer.body.is_some() {
        headers.insert("Content-Type".to_owned(), json!("application/json"));
    }
    for (name, value) in answer.headers {
        let name = if name == "retry-after" { "Retry-After" } else { name };
        headers.insert(name.to_owned(), json!(value));
    }
    let mut response = json!({"id": id, "status": answer.status, "headers": headers});
    if let Some(body) = answer.body {
        response["body"] = body;
    }
    response
}
