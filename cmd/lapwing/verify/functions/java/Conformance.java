import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

public class Conformance implements RequestHandler<Map<String, Object>, Object> {
    public static class Broken extends RuntimeException {
        public Broken(String message) {
            super(message);
        }
    }

    public static class Event {
        private String op;
        private Object value;

        public String getOp() {
            return op;
        }

        public void setOp(String op) {
            this.op = op;
        }

        public Object getValue() {
            return value;
        }

        public void setValue(Object value) {
            this.value = value;
        }
    }

    public static class Stream implements RequestStreamHandler {
        @Override
        public void handleRequest(InputStream in, OutputStream out, Context context) throws IOException {
            String event = new String(in.readAllBytes(), StandardCharsets.UTF_8);
            String value = event.substring(event.indexOf("\"value\":") + "\"value\":".length(), event.lastIndexOf('}'));
            out.write(value.getBytes(StandardCharsets.UTF_8));
        }
    }

    static {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("SIGTERM seen")));
    }

    @Override
    public Object handleRequest(Map<String, Object> event, Context context) {
        switch (String.valueOf(event.get("op"))) {
            case "context":
                Map<String, Object> told = new LinkedHashMap<>();
                told.put("id", context.getAwsRequestId());
                told.put("arn", context.getInvokedFunctionArn());
                told.put("name", context.getFunctionName());
                told.put("version", context.getFunctionVersion());
                told.put("memory", context.getMemoryLimitInMB());
                told.put("group", context.getLogGroupName());
                told.put("stream", context.getLogStreamName());
                told.put("left", context.getRemainingTimeInMillis());
                return told;
            case "fail":
                throw new Broken("as told");
            case "log":
                System.out.println("printed");
                context.getLogger().log("logged\nin lines");
                return null;
            case "sleep":
                try {
                    Thread.sleep(60_000);
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
                break;
            default:
        }
        return event.get("value");
    }

    public Object method(Map<String, Object> event) {
        return event.get("value");
    }

    public Object pojo(Event event, Context context) {
        return event.getValue();
    }
}
