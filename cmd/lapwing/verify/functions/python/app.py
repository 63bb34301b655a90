import logging
import signal
import sys
import time


def terminate(*_):
    print("SIGTERM seen", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, terminate)


class Broken(Exception):
    pass


def handler(event, context):
    op = event.get("op")
    if op == "context":
        return {
            "id": context.aws_request_id, "arn": context.invoked_function_arn, "name": context.function_name,
            "version": context.function_version, "memory": int(context.memory_limit_in_mb), "group": context.log_group_name,
            "stream": context.log_stream_name, "left": context.get_remaining_time_in_millis(),
        }
    if op == "fail":
        raise Broken("as told")
    if op == "log":
        print("printed")
        logging.warning("logged\nin lines")
        return None
    if op == "sleep":
        time.sleep(60)
    return event["value"]
