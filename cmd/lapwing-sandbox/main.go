// Command lapwing-sandbox is a sandbox: gVisor's kernel around one function's
// processes. The gvisor driver starts it; lapwing embeds it.
package main

import "lapwing.dev/lapwing/internal/sandbox/gvisor/sentry"

func main() { sentry.Main() }
