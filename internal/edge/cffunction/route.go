package cffunction

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"lapwing.dev/lapwing/internal/edge/distribution"
	"lapwing.dev/lapwing/internal/edge/trigger"
)

// router takes what a function says of the origin that a request is to go to. In a
// test there is no distribution: then what the function says is read and forgotten,
// as on AWS.
type router struct {
	event        distribution.EventType
	distribution *distribution.Distribution // nil: a test
	behaviour    *distribution.Behaviour
	header       trigger.Header
	route        *trigger.Route
}

var errNotViewerRequest = errors.New("the origin can be changed by viewer-request functions only")

// strict reads JSON that the prelude made of an argument.
func strict(text string, v any) error {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("the argument cannot be used by Lapwing: %w", err)
	}
	return nil
}

// assigned returns the targets that the request has so far.
func (r *router) assigned() (trigger.Route, error) {
	if r.route != nil {
		return *r.route, nil
	}
	id := r.behaviour.Origin
	for i := range r.distribution.OriginGroups {
		if g := &r.distribution.OriginGroups[i]; g.ID == id {
			first, err := r.byID(g.Members[0])
			if err != nil {
				return trigger.Route{}, err
			}
			second, err := r.byID(g.Members[1])
			return trigger.Route{Targets: []trigger.Target{{Origin: first}, {Origin: second}}, StatusCodes: g.StatusCodes}, err
		}
	}
	o, err := r.byID(id)
	return trigger.Route{Targets: []trigger.Target{{Origin: o}}}, err
}

func (r *router) byID(id string) (*distribution.Origin, error) {
	for i := range r.distribution.Origins {
		if o := &r.distribution.Origins[i]; o.ID == id {
			return o, nil
		}
	}
	return nil, fmt.Errorf("the distribution has no origin %q", id)
}

// choice is an origin of the distribution, and what is to be other about it.
type choice struct {
	ID        string             `json:"originId"`
	Overrides *trigger.Overrides `json:"originOverrides"`
}

// target returns the target that a choice is.
func (r *router) target(c choice) (trigger.Target, error) {
	if r.distribution == nil {
		return trigger.Target{}, nil
	}
	o, err := r.byID(c.ID)
	if err != nil || c.Overrides == nil {
		return trigger.Target{Origin: o}, err
	}
	return c.Overrides.Apply(o, r.header)
}

// update is cf.updateRequestOrigin(): of an origin group it changes the first.
func (r *router) update(text string) error {
	var v trigger.Overrides
	if err := strict(text, &v); err != nil || r.distribution == nil {
		return err
	}
	to, err := r.assigned()
	if err != nil {
		return err
	}
	first, err := v.Apply(to.Targets[0].Origin, r.header)
	if err != nil {
		return err
	}
	if first.Host == nil {
		first.Host = to.Targets[0].Host
	}
	r.route = &trigger.Route{Targets: append([]trigger.Target{first}, to.Targets[1:]...), StatusCodes: to.StatusCodes}
	return nil
}

// selectByID is cf.selectRequestOriginById().
func (r *router) selectByID(text string) error {
	var c choice
	if err := strict(text, &c); err != nil {
		return err
	}
	t, err := r.target(c)
	if err == nil {
		r.route = &trigger.Route{Targets: []trigger.Target{t}}
	}
	return err
}

// failoverCodes are the statuses on which the second origin of a group may be asked.
var failoverCodes = map[int]bool{400: true, 403: true, 404: true, 416: true, 429: true, 500: true, 502: true, 503: true, 504: true}

// group is cf.createRequestOriginGroup().
func (r *router) group(text string) error {
	var g struct {
		IDs       []choice `json:"originIds"`
		Selection string   `json:"selectionCriteria"`
		Failover  struct {
			StatusCodes []int `json:"statusCodes"`
		} `json:"failoverCriteria"`
	}
	if err := strict(text, &g); err != nil {
		return err
	}
	switch {
	case len(g.IDs) != 2:
		return fmt.Errorf("an origin group has two origins, not %d", len(g.IDs))
	case g.Selection != "" && g.Selection != "default":
		return fmt.Errorf("selectionCriteria %q is not supported by Lapwing", g.Selection)
	case len(g.Failover.StatusCodes) == 0:
		return errors.New("failoverCriteria has no statusCodes")
	}
	for _, code := range g.Failover.StatusCodes {
		if !failoverCodes[code] {
			return fmt.Errorf("status %d cannot be one of failoverCriteria", code)
		}
	}
	to := &trigger.Route{StatusCodes: g.Failover.StatusCodes}
	for _, c := range g.IDs {
		t, err := r.target(c)
		if err != nil {
			return err
		}
		to.Targets = append(to.Targets, t)
	}
	r.route = to
	return nil
}

// chooseOrigin is what the functions of the cloudfront module that change the origin
// are made of: how is which one, text its argument in JSON.
func (n *native) chooseOrigin(how, text string) {
	r := n.router
	if r == nil || r.event != "" && r.event != distribution.ViewerRequest {
		n.fail("%v", errNotViewerRequest)
	}
	do := map[string]func(string) error{"update": r.update, "select": r.selectByID, "group": r.group}[how]
	if err := do(text); err != nil {
		n.fail("%v", err)
	}
}
