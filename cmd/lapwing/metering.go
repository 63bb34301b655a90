package main

import "lapwing.dev/lapwing/internal/meter"

// unmetered keeps no usage.
type unmetered struct{}

// Record implements worker.Meter.
func (unmetered) Record(*meter.Usage, meter.Report) meter.Receipt { return unmetered{} }

func (unmetered) Written() error { return nil }

func (unmetered) Logged(error) {}
