package main

import (
	"strings"
	"testing"
	"time"

	"lapwing.dev/lapwing/internal/service/lambda"
)

func TestVersionsAreShownWithTheirSnapshots(t *testing.T) {
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	details := func(s lambda.SnapshotDetails) lambda.Details { return lambda.Details{Snapshot: s} }
	var out strings.Builder
	err := printVersions(&out, []shownVersion{
		{Version: "$LATEST", State: "Active", Runtime: "nodejs22.x", MemoryMB: 128, Details: details(lambda.SnapshotDetails{Ready: true, Created: ago(3 * time.Minute), Size: 45 << 20, Uses: 17})},
		{Version: "1", State: "Active", Runtime: "provided.al2023", MemoryMB: 1769, Details: details(lambda.SnapshotDetails{Reason: "custom runtimes cannot be told that they were restored"})},
		{Version: "2", State: "Failed", StateReason: "An error occurred during function initialization.", Runtime: "python3.13", MemoryMB: 512, SnapStart: true,
			Details: lambda.Details{Failure: "Runtime.ExitError: exit status 1"}},
		{Version: "3", State: "Active", MemoryMB: 512, SnapStart: true, Details: details(lambda.SnapshotDetails{Ready: true, Created: ago(50 * time.Hour), Size: 1 << 10, Uses: 1})},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	want := `VERSION  STATE   RUNTIME          MEMORY   SNAPSTART  SNAPSHOT
$LATEST  Active  nodejs22.x       128 MB   off        45.0 MiB, 3m old, used 17 times
1        Active  provided.al2023  1769 MB  off        none: custom runtimes cannot be told that they were restored
2        Failed  python3.13       512 MB   on         none yet
3        Active  (image)          512 MB   on         1.0 KiB, 2 days old, used 1 time
Version 2 failed: An error occurred during function initialization. Runtime.ExitError: exit status 1
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}
