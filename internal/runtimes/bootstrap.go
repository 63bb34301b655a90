package runtimes

import "embed"

// bootstraps holds Lapwing's own bootstraps, a folder a language.
//
//go:embed bootstrap
var bootstraps embed.FS
