// An external extension on AWS's own Rust crate, which prints the events of its
// life and the telemetry that it subscribed to, as the crate understood them.
use lambda_extension::{
    service_fn, Error, Extension, LambdaEvent, LambdaTelemetry, NextEvent, SharedService,
};

async fn event(event: LambdaEvent) -> Result<(), Error> {
    match event.next {
        NextEvent::Invoke(e) => println!("rust: invoke {}", e.request_id),
        NextEvent::Shutdown(e) => println!("rust: shutdown {}", e.shutdown_reason),
    }
    Ok(())
}

async fn telemetry(events: Vec<LambdaTelemetry>) -> Result<(), Error> {
    for e in events {
        println!("rust: {:?}", e.record);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    Extension::new()
        .with_events_processor(service_fn(event))
        .with_telemetry_types(&["platform", "function"])
        .with_telemetry_processor(SharedService::new(service_fn(telemetry)))
        .run()
        .await
}
