package iam

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// awsPolicyPrefix begins the ARNs of the policies that AWS manages.
const awsPolicyPrefix = "arn:aws:iam::aws:policy/"

// managedFile holds AWS managed policies, in the version that was the default
// one in early 2025. A policy has its unique id where that is public knowledge.
//
//go:embed managed.json
var managedFile []byte

// awsManaged are the AWS managed policies by ARN. They are read-only.
var awsManaged = loadManaged()

func loadManaged() map[string]*policy {
	var file []struct {
		ARN, ID, Description, Version string
		Created, Updated              time.Time
		Document                      json.RawMessage
	}
	if err := json.Unmarshal(managedFile, &file); err != nil {
		panic(fmt.Sprintf("iam: managed.json: %v", err)) // a test loads it
	}
	all := make(map[string]*policy, len(file))
	for _, f := range file {
		path := strings.TrimPrefix(f.ARN, strings.TrimSuffix(awsPolicyPrefix, "/"))
		i := strings.LastIndexByte(path, '/') + 1
		all[f.ARN] = &policy{
			Name: path[i:], ID: f.ID, ARN: f.ARN, Path: path[:i], Description: f.Description,
			Created: f.Created, Updated: f.Updated, Default: f.Version,
			Versions: []version{{f.Version, string(f.Document), f.Updated}},
		}
	}
	return all
}
