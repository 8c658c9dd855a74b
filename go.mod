module github.com/topolet/topolet

go 1.26.0
