//! The bare receiver: the SDK, as the listener uses it, and nothing behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use azure_messaging_eventhubs::{ConsumerClient, OpenReceiverOptions, RetryOptions, StartLocation, StartPosition};
use futures::StreamExt as _;

use crate::memory::{measured, resident_kib};
use crate::stand_in::{HUB, connection_string};
use crate::{Measured, Task};

/// Reads every partition to its end and counts.
pub(crate) async fn receive(task: &Task) -> Measured {
    let started = Instant::now();
    let first = resident_kib();
    let total = task.workload.signals;
    let taken = Arc::new(AtomicUsize::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for partition in 0..task.workload.partitions {
        let share = total / task.workload.partitions + usize::from(partition < total % task.workload.partitions);
        let (port, taken) = (task.port, Arc::clone(&taken));
        readers.spawn(async move { read(port, partition, share, &taken).await });
    }
    let mut middle = 0;
    while readers.join_next().await.is_some() {
        middle = resident_kib();
    }
    assert_eq!(taken.load(Ordering::Relaxed), total, "every message arrives once");
    measured(started.elapsed().as_secs_f64(), [first, middle, resident_kib()])
}

async fn read(port: u16, partition: usize, share: usize, taken: &AtomicUsize) {
    let client = ConsumerClient::builder()
        .with_custom_endpoint(format!("amqp://127.0.0.1:{port}"))
        .with_consumer_group("$Default".to_owned())
        .with_retry_options(RetryOptions { max_retries: 0, ..RetryOptions::default() })
        .open_with_connection_string(&connection_string(), Some(HUB))
        .await
        .unwrap();
    let options = OpenReceiverOptions {
        prefetch: Some(300),
        start_position: Some(StartPosition { location: StartLocation::Earliest, inclusive: false }),
        ..OpenReceiverOptions::default()
    };
    let receiver = client.open_receiver_on_partition(partition.to_string(), Some(options)).await.unwrap();
    let mut events = std::pin::pin!(receiver.stream_events());
    for _ in 0..share {
        let event = events.next().await.unwrap().unwrap();
        assert!(event.sequence_number().is_some() && event.event_data().body().is_some());
        taken.fetch_add(1, Ordering::Relaxed);
    }
}
