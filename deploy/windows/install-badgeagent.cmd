@echo off
rem Installs badgeagent as a Windows service, or brings it up to date, from the
rem folder that this file is in. Run it as an administrator:
rem
rem   install-badgeagent.cmd              install, or upgrade what is installed
rem   install-badgeagent.cmd uninstall    remove service and program
rem
rem Settings, keys and data are in %ProgramData%\badgeagent. It never removes
rem them, and never writes over badgeagent.yaml.
setlocal
set "program=%ProgramFiles%\badgeagent\badgeagent.exe"
set "data=%ProgramData%\badgeagent"

if /i "%~1"=="uninstall" goto uninstall
if not "%~1"=="" goto usage

if not exist "%~dp0badgeagent.exe" (
	echo badgeagent.exe is not beside this file. Unpack the whole archive first.
	exit /b 1
)
if not exist "%ProgramFiles%\badgeagent" mkdir "%ProgramFiles%\badgeagent"

set running=
sc query badgeagent 2>nul | find "RUNNING" >nul && set running=yes
call :stop

copy /y "%~dp0badgeagent.exe" "%program%" >nul
if errorlevel 1 (
	echo %program% could not be written. Run this as an administrator.
	exit /b 1
)
"%program%" service install --config "%data%\badgeagent.yaml"
if errorlevel 1 (
	if defined running sc start badgeagent >nul
	exit /b 1
)
if not exist "%data%\badgeagent.yaml" (
	"%program%" config example > "%data%\badgeagent.yaml"
	echo Edit %data%\badgeagent.yaml, then:  sc.exe start badgeagent
)
if defined running sc start badgeagent >nul
"%program%" version
exit /b 0

:uninstall
call :stop
if exist "%program%" "%program%" service uninstall
if errorlevel 1 exit /b 1
if exist "%ProgramFiles%\badgeagent" rmdir /s /q "%ProgramFiles%\badgeagent"
echo %data% stays as it is, with the organization's keys.
exit /b 0

:usage
echo usage: install-badgeagent.cmd [uninstall]
exit /b 2

rem Stops the service and waits until it is: a program that runs can neither be
rem written over nor removed.
:stop
sc query badgeagent 2>nul | find "RUNNING" >nul || exit /b 0
sc stop badgeagent >nul
for /l %%i in (1,1,30) do (
	sc query badgeagent | find "STOPPED" >nul && exit /b 0
	ping -n 2 127.0.0.1 >nul
)
echo The service does not stop.
exit /b 1
