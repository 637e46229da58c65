//! Calls about many records: collections, composite, queries, replication.

use chrono::TimeDelta;

use super::super::super::cell::rest_datetime;
use super::*;

#[tokio::test]
async fn collections_answer_each_row_in_order() {
    let client = client();
    let uri = "/services/data/v66.0/composite/sobjects";
    let row = |subject: Value| {
        let mut row = with_times(json!({ "Subject": subject }));
        row["attributes"] = json!({"type": "Event"});
        row
    };
    let body = json!({"allOrNone": false, "records": [row(json!("a")), row(json!("x".repeat(300))), row(json!("c"))]});
    let reply = client.send("POST", uri, &[], &body).await;
    assert_eq!(reply.status, 200);
    let flags: Vec<bool> = reply.body.as_array().unwrap().iter().map(|row| row["success"] == true).collect();
    assert_eq!(flags, [true, false, true]);
    assert_eq!(reply.body[1]["errors"][0]["statusCode"], "STRING_TOO_LONG");

    let first = reply.body[0]["id"].as_str().unwrap();
    let third = reply.body[2]["id"].as_str().unwrap();
    let body = json!({"allOrNone": true, "records": [
        {"attributes": {"type": "Event"}, "id": first, "Subject": "changed"},
        {"attributes": {"type": "Event"}, "id": "00U000000000001", "Subject": "y"},
    ]});
    let reply = client.send("PATCH", uri, &[], &body).await;
    assert_eq!(reply.body[0]["errors"][0]["statusCode"], "ALL_OR_NONE_OPERATION_ROLLED_BACK");
    assert_eq!(client.get(&format!("{EVENTS}/{first}")).await.body["Subject"], "a");

    assert_eq!(reply.body[1]["errors"][0]["statusCode"], "INVALID_CROSS_REFERENCE_KEY");
    let list = format!("{uri}/Event?ids={first},00U000000000001,{third}&fields=Subject");
    let read = client.get(&list).await;
    assert_eq!(read.body[0]["Subject"], "a");
    assert_eq!(read.body[1], Value::Null);
    let deleted = client.send("DELETE", &format!("{uri}?ids={first},{third}"), &[], &Value::Null).await;
    assert!(deleted.body.as_array().unwrap().iter().all(|row| row["success"] == true));
    let body = json!({"records": vec![row(json!("a")); 201]});
    assert_eq!(client.send("POST", uri, &[], &body).await.status, 400);
}

#[tokio::test]
async fn composite_calls_refer_to_earlier_ones_and_roll_back_together() {
    let client = client();
    let base = "/services/data/v66.0";
    let calls = |last: &str| {
        json!({"allOrNone": true, "compositeRequest": [
            {"method": "POST", "url": format!("{base}/sobjects/Event"), "referenceId": "made",
             "body": with_times(json!({"Subject": "one"}))},
            {"method": "PATCH", "url": format!("{base}/sobjects/Event/@{{made.id}}"), "referenceId": "changed",
             "body": {"Location": last}},
        ]})
    };
    let good = client.send("POST", &format!("{base}/composite"), &[], &calls("Room")).await;
    assert_eq!(good.body["compositeResponse"][1]["httpStatusCode"], 204);
    let made = good.body["compositeResponse"][0]["httpHeaders"]["location"].as_str().unwrap();
    assert!(made.starts_with("/services/data/v66.0/sobjects/Event/00U"));
    let bad = client.send("POST", &format!("{base}/composite"), &[], &calls(&"x".repeat(300))).await;
    assert_eq!(bad.body["compositeResponse"][0]["body"][0]["errorCode"], "PROCESSING_HALTED");
    assert_eq!(bad.body["compositeResponse"][1]["body"][0]["errorCode"], "STRING_TOO_LONG");
    assert_eq!(client.query("SELECT COUNT() FROM Event").await.body["totalSize"], 1);
    assert_eq!(client.org.world.meters.read().change_events, 1);
}

#[tokio::test]
async fn queries_filter_sort_page_and_see_the_recycle_bin_only_when_asked() {
    let client = client();
    for number in 0..450 {
        client.create(json!({"Subject": format!("m{number:03}")})).await;
    }
    let sized = [("sforce-query-options", "batchSize=200")];
    let uri = "/services/data/v66.0/query/?q=SELECT+Subject+FROM+Event+ORDER+BY+Subject+DESC";
    let first = client.send("GET", uri, &sized, &Value::Null).await;
    assert_eq!((&first.body["totalSize"], &first.body["done"]), (&json!(450), &json!(false)));
    assert_eq!(first.body["records"][0]["Subject"], "m449");
    let next = first.body["nextRecordsUrl"].as_str().unwrap();
    let second = client.send("GET", next, &sized, &Value::Null).await;
    let third = client.send("GET", second.body["nextRecordsUrl"].as_str().unwrap(), &sized, &Value::Null).await;
    assert_eq!((&third.body["done"], third.body["records"].as_array().unwrap().len()), (&json!(true), 50));
    assert_eq!(client.get("/services/data/v66.0/query/01gNone-200").await.code(), "INVALID_QUERY_LOCATOR");

    let found = client.query("SELECT Id, Owner.Name FROM Event WHERE Subject = 'M007'").await;
    assert_eq!(found.body["records"][0]["Owner"]["Name"], "Integration User");
    let id = found.body["records"][0]["Id"].as_str().unwrap().to_owned();
    client.send("DELETE", &format!("{EVENTS}/{id}"), &[], &Value::Null).await;
    let soql = format!("SELECT Id, IsDeleted FROM Event WHERE Id IN ('{}')", short_id(&id));
    assert_eq!(client.query(&soql).await.body["totalSize"], 0);
    let encoded: String = url::form_urlencoded::byte_serialize(soql.as_bytes()).collect();
    let all = client.get(&format!("/services/data/v66.0/queryAll?q={encoded}")).await;
    assert_eq!(all.body["records"][0]["IsDeleted"], true);
    assert_eq!(client.query("SELECT Nope FROM Event").await.code(), "INVALID_FIELD");
}

#[tokio::test]
async fn changed_and_deleted_ids_are_told_by_time() {
    let client = client();
    let kept = client.create(json!({})).await;
    let gone = client.create(json!({})).await;
    client.send("DELETE", &format!("{EVENTS}/{gone}"), &[], &Value::Null).await;
    let now = client.org.world.clock.now();
    let span = |from: chrono::DateTime<chrono::Utc>, to| {
        format!("start={}&end={}", rest_datetime(from).replace('+', "%2B"), rest_datetime(to).replace('+', "%2B"))
    };
    let hour = span(now - TimeDelta::hours(1), now + TimeDelta::hours(1));
    assert_eq!(client.get(&format!("{EVENTS}/updated/?{hour}")).await.body["ids"], json!([kept]));
    let deleted = client.get(&format!("{EVENTS}/deleted/?{hour}")).await;
    assert_eq!(deleted.body["deletedRecords"][0]["id"], json!(gone));
    assert!(deleted.body["latestDateCovered"].as_str().unwrap().ends_with("+0000"));
    for (from, to) in [(now, now + TimeDelta::seconds(59)), (now - TimeDelta::days(31), now)] {
        let refused = client.get(&format!("{EVENTS}/updated?{}", span(from, to))).await;
        assert_eq!(refused.code(), "INVALID_REPLICATION_DATE");
    }
}
