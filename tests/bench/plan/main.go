// Command plan measures the planner's packing of intervals: instances from files (id,lower,upper,size with half-open
// lifetimes, the capacity in the name) and generated ones of the same character, whose optimum is known by construction.
//
//	go run ./tests/bench/plan [-seconds 20] [-nodes N] [-generated N] [FILE ...]
//
// All times in its table are CPU seconds of this process on one core, so that other work on the machine does not count;
// -seconds is by the clock, and only ends the search. The baseline is the height that the heuristics reach without one.
package main

import (
	"encoding/csv"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/libadcg/libadcg/piecewise"
)

// instance is a set of intervals to be packed.
type instance struct {
	name     string
	items    []piecewise.Interval
	capacity int64 // 0: none is given
}

var capacityInName = regexp.MustCompile(`\.(\d+)\.csv$`)

func load(path string) (instance, error) {
	file, err := os.Open(path)
	if err != nil {
		return instance{}, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return instance{}, err
	}
	out := instance{name: filepath.Base(path)}
	if m := capacityInName.FindStringSubmatch(out.name); m != nil {
		out.capacity, _ = strconv.ParseInt(m[1], 10, 64)
	}
	column := map[string]int{}
	for line, row := range rows {
		if line == 0 {
			for i, name := range row {
				column[name] = i
			}
			for _, name := range []string{"lower", "upper", "size"} {
				if _, ok := column[name]; !ok {
					return out, fmt.Errorf("%s: no column `%s`", path, name)
				}
			}
			continue
		}
		var numbers [3]int64
		for i, name := range []string{"lower", "upper", "size"} {
			if numbers[i], err = strconv.ParseInt(row[column[name]], 10, 64); err != nil {
				return out, fmt.Errorf("%s: line %d: %w", path, line+1, err)
			}
		}
		if numbers[0] < 0 || numbers[1] <= numbers[0] || numbers[2] < 1 {
			return out, fmt.Errorf("%s: line %d: lower %d, upper %d, size %d: must be 0 <= lower < upper, size > 0", path, line+1, numbers[0], numbers[1], numbers[2])
		}
		out.items = append(out.items, piecewise.Interval{First: int(numbers[0]), Last: int(numbers[1] - 1), Size: numbers[2]})
	}
	return out, nil
}

// user is this process's time on a core, in seconds.
func user() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// result of one instance; times are infinite if it was not reached.
type result struct {
	placed             piecewise.Placement
	plain              float64 // height over bound without a search
	first, near, bound float64 // CPU seconds to the first placement, to 1.05 times the bound, to the bound
	best               float64 // to the last improvement
}

func (r *result) ratio() float64 { return float64(r.placed.Height) / float64(r.placed.Bound) }

func measure(in instance, effort piecewise.Effort) result {
	never := math.Inf(1)
	plain := piecewise.Pack(in.items, piecewise.Effort{})
	r := result{plain: float64(plain.Height) / float64(plain.Bound), first: never, near: never, bound: never}
	start := user()
	effort.Better = func(p *piecewise.Placement) {
		r.best = user() - start
		r.first = min(r.first, r.best)
		if float64(p.Height) <= 1.05*float64(p.Bound) {
			r.near = min(r.near, r.best)
		}
		if p.Height == p.Bound {
			r.bound = min(r.bound, r.best)
		}
	}
	r.placed = piecewise.Pack(in.items, effort)
	return r
}

func run() error {
	seconds := flag.Float64("seconds", 20, "of search for each instance, by the clock")
	nodes := flag.Int64("nodes", math.MaxInt64, "of search trees for each instance")
	generated := flag.Int("generated", 0, "how many instances to generate")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	var instances []instance
	for _, path := range flag.Args() {
		in, err := load(path)
		if err != nil {
			return err
		}
		instances = append(instances, in)
	}
	instances = append(instances, generate(*generated)...)
	if len(instances) == 0 {
		return fmt.Errorf("no instance: give files, or -generated N")
	}
	fmt.Println("Times are CPU seconds on one core. Targets: the bound within 10 s (where no placement reaches the bound, the optimum is above it and this says missed), 1.05 times the bound within 1 s.")
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "instance\tintervals\theight\tbound\tcapacity\theight/bound\twithout search\tfirst\tto 1.05x\tto bound\tlast better\tbound in 10 s\t1.05x in 1 s\t")
	var bounds, nears []float64
	for _, in := range instances {
		r := measure(in, piecewise.Effort{Nodes: *nodes, Time: time.Duration(*seconds * float64(time.Second))})
		bounds, nears = append(bounds, r.bound), append(nears, r.near)
		capacity := "-"
		if in.capacity > 0 {
			capacity = strconv.FormatInt(in.capacity, 10)
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%s\t%.4f\t%.4f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", in.name, len(in.items), r.placed.Height, r.placed.Bound, capacity,
			r.ratio(), r.plain, short(r.first), short(r.near), short(r.bound), short(r.best), verdict(r.bound <= 10), verdict(r.near <= 1))
	}
	table.Flush()
	within := func(times []float64, limit float64) (n int) {
		for _, t := range times {
			if t <= limit {
				n++
			}
		}
		return n
	}
	slices.Sort(bounds)
	fmt.Printf("%d instances: bound reached in 10 s by %d, in 2 s by %d, median %s, worst %s; 1.05x in 1 s by %d\n", len(instances),
		within(bounds, 10), within(bounds, 2), short(bounds[len(bounds)/2]), short(bounds[len(bounds)-1]), within(nears, 1))
	return nil
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "missed"
}

func short(seconds float64) string {
	if math.IsInf(seconds, 1) {
		return "-"
	}
	return fmt.Sprintf("%.3f", seconds)
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "plan:", err)
		os.Exit(1)
	}
}
