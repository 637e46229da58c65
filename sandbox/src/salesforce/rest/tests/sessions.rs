//! The token endpoint.

use base64::Engine as _;

use super::*;

async fn token(client: &Client, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Reply {
    let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut request = HttpRequest::builder().method("POST").uri("/services/oauth2/token").header("host", "127.0.0.1:9");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = router(Arc::clone(&client.org)).oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = serde_json::from_slice(&to_bytes(body, usize::MAX).await.unwrap()).unwrap();
    Reply { status: head.status.as_u16(), headers: head.headers, body }
}

#[tokio::test]
async fn client_credentials_open_a_session_for_the_integration_user() {
    let client = client();
    let identity = client.org.identity().clone();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", identity.client_id.as_str()),
        ("client_secret", identity.client_secret.as_str()),
    ];
    let reply = token(&client, &form, &[]).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.body["instance_url"], "http://127.0.0.1:9");
    assert!(reply.body.get("expires_in").is_none());
    let opened = Client { token: reply.body["access_token"].as_str().unwrap().into(), org: Arc::clone(&client.org) };
    let info = opened.get("/services/oauth2/userinfo").await;
    assert_eq!(info.body["organization_id"], json!(identity.org_id));
    assert_eq!(info.body["preferred_username"], json!(identity.username));

    let wrong = token(&client, &[form[0], form[1], ("client_secret", "no")], &[]).await;
    assert_eq!((wrong.status, &wrong.body["error"]), (400, &json!("invalid_client")));
    let grant = token(&client, &[("grant_type", "password")], &[]).await;
    assert_eq!(grant.body["error"], "unsupported_grant_type");
    let pair = format!("{}:{}", identity.client_id, identity.client_secret);
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    assert_eq!(token(&client, &form[..1], &[("authorization", &basic)]).await.status, 200);
}

#[tokio::test]
async fn a_signed_assertion_opens_a_session_for_its_subject() {
    #[derive(serde::Serialize, Clone)]
    struct Claims {
        iss: String,
        sub: &'static str,
        aud: &'static str,
        exp: i64,
    }
    let client = client();
    let sign = |claims: &Claims| {
        let pem = client.org.identity().jwt_key.private_pem().as_bytes();
        let key = jsonwebtoken::EncodingKey::from_rsa_pem(pem).unwrap();
        jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256), claims, &key).unwrap()
    };
    let exp = client.org.world.clock.now().timestamp() + 180;
    let iss = client.org.identity().client_id.clone();
    let good = Claims { iss, sub: "ada@example.com", aud: "https://login.salesforce.com", exp };
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let reply = token(&client, &[grant, ("assertion", &sign(&good))], &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert!(reply.body["id"].as_str().unwrap().ends_with(&client.org.find_user("ada@example.com").unwrap()));
    for (claims, error) in [
        (Claims { aud: "https://elsewhere.example", ..good.clone() }, "invalid_grant"),
        (Claims { sub: "nobody@example.com", ..good.clone() }, "invalid_grant"),
        (Claims { iss: "other".into(), ..good.clone() }, "invalid_client_id"),
        (Claims { exp: 1_000_000, ..good.clone() }, "invalid_grant"),
    ] {
        let reply = token(&client, &[grant, ("assertion", &sign(&claims))], &[]).await;
        assert_eq!((reply.status, &reply.body["error"]), (400, &json!(error)));
    }
}

#[tokio::test]
async fn an_assertion_may_write_its_expiry_as_text() {
    let client = client();
    let pem = client.org.identity().jwt_key.private_pem().as_bytes();
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(pem).unwrap();
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    let grant = ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let now = client.org.world.clock.now().timestamp();
    for (exp, status) in [((now + 180).to_string(), 200), ("1000000".to_owned(), 400), ("soon".to_owned(), 400)] {
        let claims = json!({"iss": client.org.identity().client_id, "sub": "ada@example.com",
            "aud": "https://login.salesforce.com", "exp": exp});
        let assertion = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert_eq!(token(&client, &[grant, ("assertion", &assertion)], &[]).await.status, status, "{exp}");
    }
}

#[tokio::test]
async fn a_token_is_introspected_and_revoked_once() {
    async fn ask(client: &Client, path: &str, form: &[(&str, &str)]) -> (u16, Value) {
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = HttpRequest::builder().method("POST").uri(path).body(Body::from(body)).unwrap();
        let response = router(Arc::clone(&client.org)).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
    let client = client();
    let identity = client.org.identity().clone();
    let opened = client.org.issue_token(&identity.client_id, client.org.integration_user_id());
    let app = [("client_id", identity.client_id.as_str()), ("client_secret", identity.client_secret.as_str())];
    let form = [app[0], app[1], ("token", opened.as_str())];
    let (status, told) = ask(&client, "/services/oauth2/introspect", &form).await;
    assert_eq!((status, &told["active"], &told["username"]), (200, &json!(true), &json!(identity.username)));
    assert_eq!(ask(&client, "/services/oauth2/introspect", &form[..1]).await.1["error"], "invalid_client");
    assert_eq!(ask(&client, "/services/oauth2/revoke", &form[2..]).await.0, 200);
    assert_eq!(ask(&client, "/services/oauth2/introspect", &form).await.1, json!({"active": false}));
    let (status, again) = ask(&client, "/services/oauth2/revoke", &form[2..]).await;
    assert_eq!((status, &again["error"]), (400, &json!("invalid_token")));
}

#[tokio::test]
async fn a_replaced_secret_opens_no_session_and_open_ones_go_on() {
    let client = client();
    let identity = client.org.identity().clone();
    let second = client.org.rotate_secret();
    let (grant, id) = (("grant_type", "client_credentials"), ("client_id", identity.client_id.as_str()));
    let refused = token(&client, &[grant, id, ("client_secret", &identity.client_secret)], &[]).await;
    assert_eq!((refused.status, &refused.body["error"]), (400, &json!("invalid_client")));
    assert_eq!(token(&client, &[grant, id, ("client_secret", &second)], &[]).await.status, 200);
    assert_eq!(client.get("/services/oauth2/userinfo").await.status, 200);
}

#[tokio::test]
async fn sessions_are_refused_as_often_as_switched() {
    let client = client();
    client.org.world.faults.change(|switches| switches.salesforce_refuse_sessions_next = 1);
    let refused = client.get("/services/data/v66.0/limits").await;
    assert_eq!((refused.status, &refused.body[0]["errorCode"]), (401, &json!("INVALID_SESSION_ID")));
    assert_eq!(client.get("/services/data/v66.0/limits").await.status, 200);
}
