package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	pictureWidth = 1160
	panelHeight  = 380 // at least
	plotLeft     = 70
	plotTop      = 50
	plotWidth    = 640
	plotHeight   = 260
	legendLeft   = plotLeft + plotWidth + 30
	legendEntry  = 38
)

// Colours that can be told apart, also by most who see colours differently.
var colours = []string{"#4477aa", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999933", "#882255", "#44aa99", "#555555", "#ddaa33"}

// ownColour is that of Lapwing's curves among those of others.
const ownColour = "#ee3311"

// styles are those of curves, by the kind of the sample.
var styles = map[kind]struct {
	width float64
	dash  string
}{floorKind: {1.5, "2 3"}, peerKind: {1.5, ""}, ownKind: {2.5, ""}, firstKind: {2, "8 4"}}

// picture draws the distributions as an SVG: a panel for each measure, in it for
// each party what share of its times was at most so long, on a logarithmic axis.
func (r *report) picture() []byte {
	var measures []string
	for _, s := range r.Samples {
		if !slices.Contains(measures, s.Measure) {
			measures = append(measures, s.Measure)
		}
	}
	var b, panels bytes.Buffer
	height := 0
	var subjects []string // in the order of their colours
	for _, m := range measures {
		var samples []sample
		for _, s := range r.Samples {
			if s.Measure == m {
				samples = append(samples, s)
			}
		}
		fmt.Fprintf(&panels, `<g transform="translate(0,%d)">`+"\n", height)
		panel(&panels, m, samples, &subjects)
		panels.WriteString("</g>\n")
		height += max(panelHeight, plotTop+(len(samples)+1)*legendEntry)
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", pictureWidth, height, pictureWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", pictureWidth, height)
	b.Write(panels.Bytes())
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// panel draws one measure. What has a colour in one panel has the same in others.
func panel(b *bytes.Buffer, measure string, samples []sample, subjects *[]string) {
	low, high := math.Inf(1), 0.0
	for _, s := range samples {
		low, high = min(low, s.Curve[0]), max(high, s.MS.Max)
	}
	// Whole decades, so that the axis begins and ends at a labelled line.
	from, to := math.Floor(math.Log10(max(low, .001))), math.Ceil(math.Log10(max(high, .01)))
	x := func(ms float64) float64 {
		return plotLeft + plotWidth*(math.Log10(max(ms, math.Pow(10, from)))-from)/(to-from)
	}
	y := func(share float64) float64 { return plotTop + plotHeight*(1-share) }
	text := func(x, y float64, anchor, attributes, s string) {
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" %s>`, x, y, anchor, attributes)
		xml.EscapeText(b, []byte(s)) // a buffer takes everything
		b.WriteString("</text>\n")
	}
	line := func(x1, y1, x2, y2 float64, colour string) {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
	}
	text(plotLeft, 30, "start", `font-size="15" font-weight="bold"`, measure)
	for _, share := range []float64{0, .25, .5, .75, .9, .99} {
		line(plotLeft, y(share), plotLeft+plotWidth, y(share), "#dddddd")
		if share != .99 { // too near to the end of the axis for a label
			text(plotLeft-8, y(share)+4, "end", "", fmt.Sprintf("%.0f %%", share*100))
		}
	}
	for decade := from; decade <= to; decade++ {
		at := math.Pow(10, decade)
		line(x(at), plotTop, x(at), plotTop+plotHeight, "#bbbbbb")
		text(x(at), plotTop+plotHeight+18, "middle", "", axisLabel(at))
		for n := 2.0; n < 10 && decade < to; n++ {
			line(x(n*at), plotTop, x(n*at), plotTop+plotHeight, "#eeeeee")
		}
	}
	text(plotLeft+plotWidth/2, plotTop+plotHeight+38, "middle", "", "at most so long")
	text(legendLeft+30, plotTop-8, "start", `fill="#555555"`, "p50, p99")
	for i, s := range samples {
		// What is about the same has the same colour.
		subject, _, _ := strings.Cut(s.Who, ",")
		if !slices.Contains(*subjects, subject) {
			*subjects = append(*subjects, subject)
		}
		colour, style := colours[slices.Index(*subjects, subject)%len(colours)], styles[s.Kind]
		if subject == "Lapwing" {
			colour = ownColour
		}
		dash := ""
		if style.dash != "" {
			dash = fmt.Sprintf(` stroke-dasharray="%s"`, style.dash)
		}
		var points strings.Builder
		for k, ms := range s.Curve {
			fmt.Fprintf(&points, "%.1f,%.1f ", x(ms), y(float64(k)/float64(len(s.Curve)-1)))
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="%.1f"%s/>`+"\n", strings.TrimSpace(points.String()), colour, style.width, dash)
		at := float64(plotTop + 12 + i*legendEntry)
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s" stroke-width="%.1f"%s/>`+"\n", legendLeft, at-4, legendLeft+24, at-4, colour, style.width+.5, dash)
		text(legendLeft+30, at, "start", "", s.Who)
		text(legendLeft+30, at+14, "start", `fill="#555555" font-size="11"`, short(fromMS(s.MS.P50))+", "+short(fromMS(s.MS.P99)))
	}
}

// axisLabel writes a time of a decade.
func axisLabel(ms float64) string {
	switch {
	case ms < 1:
		return fmt.Sprintf("%.3g µs", ms*1000)
	case ms < 1000:
		return fmt.Sprintf("%.3g ms", ms)
	}
	return fmt.Sprintf("%.3g s", ms/1000)
}
