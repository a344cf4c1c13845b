module github.com/libadcg/libadcg

go 1.24
