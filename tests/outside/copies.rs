//! Copies of recordings in S3 storage, through the whole binary: they are uploaded in spite of
//! earlier failures, downloaded from there, and deleted there.

use std::time::Duration;

use sim::{CallScript, HangupRule};

use super::dial::tone;
use super::outbound::{World, world};
use crate::support::bucket::Bucket;
use crate::support::{database, http};

/// Starts a node with callers who leave messages of two seconds, copied to `bucket`.
async fn copying(more: &str, bucket: &Bucket) -> World {
    let toml = bucket.toml(more);
    let world = world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.extra = format!("[cluster]\nnode_id = \"copying\"\n{toml}");
    })
    .await;
    world.app.xml("/recording", "<Response/>");
    let document = format!(
        "<Response><Record callbackUrl=\"{}\" fileFormat=\"wav\" maxLength=\"2\" playBeep=\"false\"/></Response>",
        world.app.url("/recording")
    );
    world.app.xml("/unused", document);
    world
}

/// Leaves a message. Returns the recording's id and URL.
async fn message(world: &World) -> (String, String) {
    let script =
        CallScript { say: tone(700.0, 5), hangup: HangupRule::Never, ..CallScript::default() };
    let known: Vec<String> = world
        .app
        .requests()
        .iter()
        .filter(|s| s.path == "/recording")
        .map(|s| s.param("RecordingID").to_owned())
        .collect();
    let phone = world.sim.place_call(script);
    let callback = world
        .app
        .wait_where("/recording", |seen| !known.iter().any(|id| id == seen.param("RecordingID")))
        .await;
    drop(phone);
    (callback.param("RecordingID").to_owned(), callback.param("RecordUrl").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_copied_after_failures_and_a_kill_and_read_from_the_bucket() {
    let bucket = Bucket::start().await;
    let mut world = copying("keep_local = false", &bucket).await;
    // The bucket refuses the upload, then answers 200 without storing it. The kill comes in between.
    bucket.fail(&[503, 200]);
    let (id, url) = message(&world).await;
    let before = http::get(&url).await;
    assert_eq!(before.status, 200, "from the disk, until the copy is there");
    bucket.until_requests(1).await;
    world.node.kill();
    world.node.start_again().await;
    let key = format!("offhook/{id}.wav");
    let objects = bucket.until(|objects| objects.contains_key(&key)).await;
    assert_eq!(
        (objects[&key].content_type.as_str(), &objects[&key].bytes[..]),
        ("audio/wav", &before.body[..])
    );

    // The local file is deleted after the copy has been recorded. Downloads stay the same.
    let file = world.node.dir.path().join("recordings").join(format!("{id}.wav"));
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while file.exists() {
        every.tick().await;
    }
    let after = http::get(&url).await;
    assert_eq!((after.status, &after.body), (200, &before.body));
    for name in [
        "content-type",
        "content-length",
        "etag",
        "cache-control",
        "accept-ranges",
        "content-disposition",
    ] {
        assert_eq!(after.headers.get(name), before.headers.get(name), "{name}");
    }
    let part = http::send("GET", &url, &[("range", "bytes=44-143")], "").await;
    assert_eq!((part.status, &part.body[..]), (206, &before.body[44..144]));
    let etag = before.headers["etag"].to_str().expect("an ETag");
    for (range, condition, status) in [
        ("bytes=0-1,5-6", etag, 200),
        ("bytes=0-1", "\"other\"", 200),
        ("bytes=0-1", etag, 206),
        ("lines=0-1", etag, 200),
    ] {
        let answer =
            http::send("GET", &url, &[("range", range), ("if-range", condition)], "").await;
        assert_eq!(answer.status, status, "{range} {condition}");
    }
    let behind = http::send("GET", &url, &[("range", "bytes=99999999-")], "").await;
    assert_eq!((behind.status, behind.body.len()), (416, 0));
    let head = http::send("HEAD", &url, &[], "").await;
    assert_eq!(
        (head.status, head.headers.get("content-length")),
        (200, before.headers.get("content-length"))
    );
    assert_eq!(http::get(&url.replace(".wav", ".mp3")).await.status, 404);

    // Failing storage must not look like a missing recording.
    bucket.fail(&[500]);
    assert_eq!(http::get(&url).await.status, 502);

    // Deleting a recording also deletes its copy, even after a failure.
    bucket.fail(&[503]);
    assert_eq!(
        world.rest("DELETE", &format!("Recording/{id}/"), &[], String::new()).await.status,
        204
    );
    assert_eq!(http::get(&url).await.status, 404);
    bucket.until(std::collections::BTreeMap::is_empty).await;
    assert!(!world.node.log().contains(crate::support::bucket::SECRET), "the log has the secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_redirect_to_the_bucket_if_configured() {
    let bucket = Bucket::start().await;
    let world = copying("keep_local = false\nredirect = true", &bucket).await;
    let (id, url) = message(&world).await;
    let key = format!("offhook/{id}.wav");
    let objects = bucket.until(|objects| objects.contains_key(&key)).await;
    let file = world.node.dir.path().join("recordings").join(format!("{id}.wav"));
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while file.exists() {
        every.tick().await;
    }
    let sent = http::get(&url).await;
    assert_eq!((sent.status, sent.body.len()), (307, 0));
    // The content security policy of the console's pages has no bucket.
    let page = [("sec-fetch-site", "same-origin"), ("range", "bytes=0-9")];
    let played = http::send("GET", &url, &page, String::new()).await;
    assert_eq!((played.status, played.body.len()), (206, 10));
    let location = sent.headers["location"].to_str().expect("a URL");
    let there = http::get(location).await;
    assert_eq!((there.status, &there.body[..]), (200, &objects[&key].bytes[..]));
    assert_eq!(
        http::get(&location.replace("X-Amz-Expires=300", "X-Amz-Expires=3000")).await.status,
        403
    );
    world.node.until_metric("offhook_recording_copies_total", &[("outcome", "stored")], 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_given_up_and_a_kept_local_file_stays() {
    let bucket = Bucket::start().await;
    let world = copying("", &bucket).await;
    let (id, url) = message(&world).await;
    bucket.until(|objects| objects.contains_key(&format!("offhook/{id}.wav"))).await;
    let file = world.node.dir.path().join("recordings").join(format!("{id}.wav"));
    assert!(file.exists(), "kept");
    std::fs::remove_file(&file).expect("removed by hand");
    // Available as soon as the copy is known.
    let mut every = tokio::time::interval(Duration::from_millis(20));
    while http::get(&url).await.status != 200 {
        every.tick().await;
    }

    let asked = bucket.requests().len();
    bucket.fail(&[503, 503]);
    let (id, _) = message(&world).await;
    bucket.until_requests(asked + 1).await;
    std::fs::remove_file(world.node.dir.path().join("recordings").join(format!("{id}.wav")))
        .expect("removed by hand");
    world.node.until_metric("offhook_recording_copies_total", &[("outcome", "lost")], 1.0).await;
    assert!(
        world.node.metric("offhook_recording_copies_total", &[("outcome", "retry")]).await >= 1.0
    );
    assert_eq!(bucket.objects().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_a_recording_and_its_copy() {
    let bucket = Bucket::start().await;
    let mut world = copying("keep_local = true\n[retention]\nrecording_days = 2", &bucket).await;
    let (old, old_url) = message(&world).await;
    let (young, young_url) = message(&world).await;
    bucket.until(|objects| objects.len() == 2).await;
    world.node.until_metric("offhook_recording_copies_total", &[("outcome", "stored")], 2.0).await;
    world.node.kill();
    // Three days earlier.
    let earlier =
        "UPDATE recordings SET started_us = started_us - 259200000000 WHERE recording_id = $1";
    database::execute(world.node.dir.path(), earlier, &old).await;
    world.node.start_again().await;
    let objects = bucket.until(|objects| objects.len() == 1).await;
    assert!(objects.contains_key(&format!("offhook/{young}.wav")));
    assert_eq!((http::get(&old_url).await.status, http::get(&young_url).await.status), (404, 200));
    assert_eq!(
        world.rest("GET", &format!("Recording/{old}/"), &[], String::new()).await.status,
        404
    );
    assert!(!world.node.dir.path().join("recordings").join(format!("{old}.wav")).exists());
}

/// A clock that is weeks ahead at a start deletes nothing for an hour.
#[tokio::test(flavor = "multi_thread")]
async fn r08_a_start_long_after_the_newest_record_deletes_nothing_at_once() {
    let bucket = Bucket::start().await;
    let mut world = copying("keep_local = true", &bucket).await;
    let (id, url) = message(&world).await;
    world.node.signal("TERM");
    world.node.wait();
    let folder = world.node.dir.path();
    // 40 days earlier.
    let earlier =
        "UPDATE recordings SET started_us = started_us - 3456000000000 WHERE recording_id = $1";
    database::execute(folder, earlier, &id).await;
    database::execute(folder, "UPDATE call_days SET day = day - 40 WHERE scope <> $1", "").await;
    let messages = "UPDATE messages SET came_us = came_us - 3456000000000 WHERE message_id <> $1";
    database::execute(folder, messages, "").await;
    world.node.start_again().await;
    world.node.until_log("expired data kept for another hour").await;
    assert_eq!(http::get(&url).await.status, 200);
}
