"""Providers who give a mail address to anybody: nobody proves a domain of theirs by a mail from it."""

from __future__ import annotations

_NAMES = """
126.com 163.com 21cn.com aim.com aliyun.com aol.com arcor.de att.net bellsouth.net bigpond.com
bigpond.net.au bluewin.ch bol.com.br btinternet.com caramail.com centurylink.net charter.net comcast.net
cox.net daum.net disroot.org duck.com earthlink.net email.com email.cz fastmail.com fastmail.fm foxmail.com
free.fr freemail.hu freenet.de frontier.com gmail.com gmx.at gmx.ch gmx.com gmx.de gmx.net googlemail.com
hanmail.net hey.com hotmail.be hotmail.co.uk hotmail.com hotmail.de hotmail.es hotmail.fr hotmail.it
hushmail.com icloud.com ig.com.br inbox.com inbox.lv inbox.ru iinet.net.au interia.pl juno.com laposte.net
libero.it list.ru live.be live.ca live.co.uk live.com live.com.au live.de live.fr live.it live.nl lycos.com
mac.com mail.com mail.de mail.ee mail.ru mailbox.org mailfence.com mailinator.com me.com msn.com naver.com
netscape.net netzero.net ntlworld.com o2.pl onet.pl op.pl optonline.net optusnet.com.au orange.fr outlook.com
outlook.com.au outlook.de outlook.es outlook.fr outlook.it ozemail.com.au pm.me posteo.de posteo.net
proton.me protonmail.ch protonmail.com qq.com rambler.ru rediffmail.com riseup.net rocketmail.com rogers.com
runbox.com sapo.pt sbcglobal.net seznam.cz sfr.fr shaw.ca sina.cn sina.com sky.com skynet.be sohu.com startmail.com
sympatico.ca t-online.de talktalk.net telenet.be telstra.com terra.com.br tin.it tiscali.it tpg.com.au
tuta.com tuta.io tutamail.com tutanota.com tutanota.de uol.com.br verizon.net virgilio.it virgin.net
virginmedia.com vivaldi.net vodafone.it wanadoo.fr web.de windstream.net wp.pl xtra.co.nz ya.ru yahoo.ca
yahoo.co.in yahoo.co.jp yahoo.co.nz yahoo.co.uk yahoo.com yahoo.com.ar yahoo.com.au yahoo.com.br
yahoo.com.mx yahoo.de yahoo.es yahoo.fr yahoo.in yahoo.it yandex.com yandex.ru yeah.net ymail.com zoho.com
zohomail.com ziggo.nl
"""
FREE_MAIL = frozenset(_NAMES.split())
"""Canonical names; a sub-domain of one of them counts too."""
