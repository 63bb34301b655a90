package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Lifecycle is a lifecycle policy: which images a repository drops (Amazon ECR
// user guide, "Lifecycle policy parameters"). Rules by when an image was last
// pulled and storage classes are not supported, and refused.
type Lifecycle struct{ rules []lifecycleRule }

type lifecycleRule struct {
	Priority    int    `json:"rulePriority"`
	Description string `json:"description"`
	Selection   struct {
		Status   string   `json:"tagStatus"`
		Prefixes []string `json:"tagPrefixList"`
		Patterns []string `json:"tagPatternList"`
		Count    string   `json:"countType"`
		Unit     string   `json:"countUnit"`
		Number   int      `json:"countNumber"`
	} `json:"selection"`
	Action struct {
		Type string `json:"type"`
	} `json:"action"`
}

// Bounds of a policy.
const (
	maxLifecycleRules = 50
	maxLifecycleCount = 1_000_000_000
	maxTagPatterns    = 100
)

// ParseLifecycle reads a policy; the error says what is wrong with it.
func ParseLifecycle(text string) (*Lifecycle, error) {
	var doc struct {
		Rules []lifecycleRule `json:"rules"`
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("there is more than one JSON value")
	}
	if len(doc.Rules) == 0 || len(doc.Rules) > maxLifecycleRules {
		return nil, fmt.Errorf("'rules' must have 1 to %d entries", maxLifecycleRules)
	}
	seen := map[int]bool{}
	for i := range doc.Rules {
		rule := &doc.Rules[i]
		if err := rule.check(); err != nil {
			return nil, fmt.Errorf("rule with priority %d: %w", rule.Priority, err)
		}
		if seen[rule.Priority] {
			return nil, fmt.Errorf("rule with priority %d: the priority is not unique", rule.Priority)
		}
		seen[rule.Priority] = true
	}
	slices.SortFunc(doc.Rules, func(a, b lifecycleRule) int { return a.Priority - b.Priority })
	for i, rule := range doc.Rules {
		if rule.Selection.Status == "any" && i != len(doc.Rules)-1 {
			return nil, fmt.Errorf("rule with priority %d: one with tagStatus 'any' must have the highest priority number", rule.Priority)
		}
	}
	return &Lifecycle{doc.Rules}, nil
}

func (r *lifecycleRule) check() error {
	s := &r.Selection
	if r.Priority < 1 {
		return fmt.Errorf("'rulePriority' must be at least 1")
	}
	if r.Action.Type != "expire" {
		return fmt.Errorf("'action.type' %q is not supported by Lapwing: it must be 'expire'", r.Action.Type)
	}
	lists := len(s.Prefixes) + len(s.Patterns)
	switch {
	case s.Status == "tagged" && lists == 0:
		return fmt.Errorf("'tagPrefixList' or 'tagPatternList' is required with tagStatus 'tagged'")
	case s.Status == "tagged" && len(s.Prefixes) > 0 && len(s.Patterns) > 0:
		return fmt.Errorf("only one of 'tagPrefixList' and 'tagPatternList' is allowed")
	case lists > maxTagPatterns:
		return fmt.Errorf("there are more than %d tags", maxTagPatterns)
	case s.Status == "tagged":
	case s.Status != "untagged" && s.Status != "any":
		return fmt.Errorf("'tagStatus' must be 'tagged', 'untagged' or 'any'")
	case lists > 0:
		return fmt.Errorf("'tagPrefixList' and 'tagPatternList' need tagStatus 'tagged'")
	}
	for _, p := range s.Patterns {
		if strings.Count(p, "*") > 4 || !ValidTag(strings.ReplaceAll(p, "*", "x")) {
			return fmt.Errorf("%q is no tag pattern", p)
		}
	}
	switch s.Count {
	case "imageCountMoreThan":
		if s.Unit != "" {
			return fmt.Errorf("'countUnit' does not belong to countType 'imageCountMoreThan'")
		}
	case "sinceImagePushed":
		if s.Unit != "days" {
			return fmt.Errorf("'countUnit' must be 'days'")
		}
	default:
		return fmt.Errorf("'countType' %q is not supported by Lapwing: it must be 'imageCountMoreThan' or 'sinceImagePushed'", s.Count)
	}
	if s.Number < 1 || s.Number > maxLifecycleCount {
		return fmt.Errorf("'countNumber' must be at least 1")
	}
	return nil
}

// matches tells whether a rule is about an image: a tagged image must have a
// tag for each of the prefixes or patterns.
func (r *lifecycleRule) matches(img Tagged) bool {
	s := &r.Selection
	switch {
	case s.Status == "any":
		return true
	case s.Status == "untagged" || len(img.Tags) == 0:
		return s.Status == "untagged" && len(img.Tags) == 0
	}
	for _, p := range s.Prefixes {
		if !slices.ContainsFunc(img.Tags, func(t string) bool { return strings.HasPrefix(t, p) }) {
			return false
		}
	}
	for _, p := range s.Patterns {
		if !slices.ContainsFunc(img.Tags, func(t string) bool { ok, _ := path.Match(p, t); return ok }) {
			return false
		}
	}
	return true
}

// Expiry is an image that a policy drops, and by which rule.
type Expiry struct {
	Image    Tagged
	Priority int
}

// Expired returns the images of a repository that the policy drops now, those
// that were pushed last first within each rule. As on ECR all images that a rule
// matches count for it, and one that a rule matches cannot be dropped by a later
// one. What an index in the repository lists is kept as long as the index, and
// what refers to a subject is kept.
func (l *Lifecycle) Expired(images []Tagged, now time.Time) []Expiry {
	listed := map[string]bool{}
	for _, img := range images {
		for _, d := range img.Manifests {
			listed[string(d)] = true
		}
	}
	judged := slices.DeleteFunc(slices.Clone(images), func(img Tagged) bool { return listed[string(img.Digest)] || img.Subject != "" })
	slices.SortStableFunc(judged, func(a, b Tagged) int { return b.Pushed.Compare(a.Pushed) })
	claimed := make([]bool, len(judged))
	var expired []Expiry
	for _, rule := range l.rules {
		matched := 0
		for i, img := range judged {
			if !rule.matches(img) {
				continue
			}
			matched++
			if !claimed[i] && rule.drops(img, matched, now) {
				expired = append(expired, Expiry{img, rule.Priority})
			}
			claimed[i] = true
		}
	}
	return expired
}

// drops tells whether a rule drops an image that is the nth it matches.
func (r *lifecycleRule) drops(img Tagged, nth int, now time.Time) bool {
	if r.Selection.Count == "imageCountMoreThan" {
		return nth > r.Selection.Number
	}
	days := int(now.Sub(img.Pushed) / (24 * time.Hour))
	return days >= r.Selection.Number
}
