// A function on AWS's own Rust crate, which answers with what it sees or fails
// as it is told.
use lambda_runtime::{service_fn, Diagnostic, Error, LambdaEvent};
use serde_json::{json, Value};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let c = event.context;
    match event.payload["Do"].as_str() {
        Some("context") => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
            let left = c.deadline - now;
            return Ok(json!({
                "id": c.request_id, "arn": c.invoked_function_arn, "name": c.env_config.function_name,
                "version": c.env_config.version, "memory": c.env_config.memory.to_string(),
                "group": c.env_config.log_group, "stream": c.env_config.log_stream,
                "time": left > 0 && left <= 60_000, "client": c.client_context.unwrap().custom["k"],
            }));
        }
        Some("env") => return Ok(std::env::vars().map(|(k, v)| (k, Value::from(v))).collect::<serde_json::Map<_, _>>().into()),
        Some("log") => {
            println!("from stdout of {}", c.request_id);
            eprintln!("from stderr of {}", c.request_id);
        }
        Some("fail") => return Err(Diagnostic { error_type: "Broken".into(), error_message: "as told".into() }),
        Some("panic") => panic!("as told"),
        Some("exit") => std::process::exit(3),
        Some("sleep") => tokio::time::sleep(Duration::from_secs(60)).await,
        _ => {}
    }
    Ok(event.payload["Echo"].clone())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    lambda_runtime::run(service_fn(handle)).await
}
