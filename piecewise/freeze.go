package piecewise

// Freeze ends the building: it finds the types that are not known yet and validates the whole graph. A failed Freeze
// leaves the graph as it was, open for additions.
func (g *Graph) Freeze() error {
	if err := g.open(); err != nil {
		return err
	}
	if len(g.Outputs) == 0 {
		return Errorf(ErrGraph, "graph: it has no outputs")
	}
	if err := g.checkMutation(); err != nil {
		return err
	}
	if err := g.checkUse(); err != nil {
		return err
	}
	values := append([]ValueInfo(nil), g.Values...)
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if allKnown(values, n.Outputs) {
			continue
		}
		types, err := inferTypes(values, n, g.Limits)
		if err != nil {
			return err
		}
		if n.Parts, err = findParts(values, n, types); err != nil {
			return err
		}
		for k, v := range n.Outputs {
			values[v].Type, values[v].Known = types[k], true
		}
	}
	g.Values, g.Frozen = values, true
	return nil
}

// checkMutation refuses static nodes that write states: a captured write would run in warm-up and capture too.
func (g *Graph) checkMutation() error {
	for i := range g.Nodes {
		n := &g.Nodes[i]
		if n.Kind != Static {
			continue
		}
		for k, v := range n.Inputs {
			if n.Schema.Mutates>>k&1 != 0 {
				return Errorf(ErrGraph, "op `%s` is static and writes state `%s`: only dynamic ops may write", n.Name, g.Values[v].Name)
			}
		}
	}
	return nil
}

// checkUse refuses values that nobody needs: they are mistakes, and would cost memory.
func (g *Graph) checkUse() error {
	used := make([]bool, len(g.Values))
	for i := range g.Nodes {
		for _, v := range g.Nodes[i].Inputs {
			used[v] = true
		}
	}
	for _, o := range g.Outputs {
		used[o.Value] = true
	}
	for v, info := range g.Values {
		if info.Role != RoleActivation && !used[v] {
			return Errorf(ErrGraph, "%s `%s` is never used", info.Role, info.Name)
		}
	}
	for i := range g.Nodes {
		n := &g.Nodes[i]
		any := len(n.Outputs) == 0
		for _, v := range n.Outputs {
			any = any || used[v]
		}
		if !any {
			return Errorf(ErrGraph, "value `%s` of op `%s` is never used", g.Values[n.Outputs[0]].Name, n.Name)
		}
	}
	return nil
}
