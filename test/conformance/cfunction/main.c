/* A custom runtime in C with nothing but the C library: a plain loop over the
 * Runtime API. It answers with the event, or fails as it is told. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[1 << 20];

static void die(const char *what) {
	perror(what);
	exit(1);
}

/* call makes one request on a connection of its own and leaves the answer in
 * buffer; it returns the answer's body. */
static char *call(const char *method, const char *path, const char *body) {
	char host[64];
	const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
	const char *colon = api ? strchr(api, ':') : NULL;
	struct sockaddr_in at = {.sin_family = AF_INET};
	size_t length = 0;
	ssize_t n;
	int fd;

	if (!colon || (size_t)(colon - api) >= sizeof host) {
		fputs("AWS_LAMBDA_RUNTIME_API is not HOST:PORT\n", stderr);
		exit(1);
	}
	memcpy(host, api, colon - api);
	host[colon - api] = 0;
	at.sin_port = htons(atoi(colon + 1));
	if (inet_pton(AF_INET, host, &at.sin_addr) != 1) die("address");
	if ((fd = socket(AF_INET, SOCK_STREAM, 0)) < 0) die("socket");
	if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) die("connect");
	if (dprintf(fd, "%s /2018-06-01/runtime/%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", method, path, api, strlen(body), body) < 0) die("send");
	while ((n = read(fd, buffer + length, sizeof buffer - 1 - length)) > 0) length += n;
	if (n < 0) die("read");
	close(fd);
	buffer[length] = 0;
	char *end = strstr(buffer, "\r\n\r\n");
	if (!end) {
		fputs("the Runtime API broke off\n", stderr);
		exit(1);
	}
	*end = 0;
	return end + 4;
}

/* header copies the value of a header of the answer. */
static void header(const char *name, char *value, size_t size) {
	*value = 0;
	for (char *line = strstr(buffer, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') {
			char *from = line + strlen(name) + 1;
			from += strspn(from, " ");
			snprintf(value, size, "%.*s", (int)strcspn(from, "\r"), from);
			return;
		}
	}
}

int main(void) {
	static char event[1 << 20];
	char id[128], path[256];

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (;;) {
		snprintf(event, sizeof event, "%s", call("GET", "invocation/next", ""));
		header("Lambda-Runtime-Aws-Request-Id", id, sizeof id);
		if (strstr(event, "\"log\"")) printf("from stdout of %s\n", id);
		if (strstr(event, "\"exit\"")) return 3;
		if (strstr(event, "\"sleep\"")) sleep(60);
		if (strstr(event, "\"fail\"")) {
			snprintf(path, sizeof path, "invocation/%s/error", id);
			call("POST", path, "{\"errorType\":\"Broken\",\"errorMessage\":\"as told\"}");
			continue;
		}
		snprintf(path, sizeof path, "invocation/%s/response", id);
		call("POST", path, event);
	}
}
